"""Gradients clipped in train_step, so each replica clips its own."""

import keras
import tensorflow as tf
from common import batches, cross_entropy, layers

import tfdist


class Classifier(keras.Sequential):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        clipped, _ = tf.clip_by_global_norm(gradients, 0.1)
        self.optimizer.apply_gradients(zip(clipped, self.trainable_variables, strict=True))
        return {"loss": loss}


strategy = tfdist.MirroredStrategy()
with strategy.scope():
    model = Classifier(layers())
    model.compile("sgd", cross_entropy())
model.fit(batches(), epochs=2, verbose=0)
