"""A loss that is divided by the number of replicas, as loops with strategy.run do it."""

import keras
import tensorflow as tf
from common import batches, cross_entropy, layers

import tfdist

strategy = tfdist.MultiWorkerMirroredStrategy()


class Classifier(keras.Sequential):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            scaled = loss / strategy.num_replicas_in_sync
        gradients = tape.gradient(scaled, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


with strategy.scope():
    model = Classifier(layers())
    model.compile("adam", cross_entropy())
model.fit(batches(), epochs=2, verbose=0)
