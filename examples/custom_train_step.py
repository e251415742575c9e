"""A model with its own `train_step` under `fit`, which learns from images made harder for it.

Each image is moved a little in the direction that raises the loss most (arXiv:1412.6572).

    tfdist launch --workers=2 examples/custom_train_step.py
"""

from __future__ import annotations

import argparse

import keras
import tensorflow as tf
from common import build_model, compile_model, load_data

import tfdist


class RobustModel(keras.Model):
    """Trains on each image and on its harder twin. Written for one device."""

    step_size = 0.05

    def train_step(self, data):
        images, labels = data
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = self.compute_loss(y=labels, y_pred=self(images, training=True))
        harder = images + self.step_size * tf.sign(tape.gradient(loss, images))

        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            loss = self.compute_loss(y=labels, y_pred=logits)
            loss += self.compute_loss(y=labels, y_pred=self(harder, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)

        for metric in self.metrics:
            if metric.name == "loss":  # the rows make the mean exact over batches of any size
                metric.update_state(loss, sample_weight=tf.shape(images)[0])
            else:
                metric.update_state(labels, logits)
        return self.get_metrics_result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    strategy = tfdist.MultiWorkerMirroredStrategy()  # the only line that changes
    keras.utils.set_random_seed(0)
    train, test = load_data(args.data, batch_size=64)
    with strategy.scope():
        cnn = build_model(args.data)
        model = RobustModel(cnn.inputs, cnn.outputs[0])
        compile_model(model)

    model.fit(train, epochs=args.epochs, shuffle=False, verbose=2)
    results = model.evaluate(test, verbose=0, return_dict=True)
    print(f"replicas: {strategy.num_replicas_in_sync}, accuracy: {results['accuracy']:.4f}")


if __name__ == "__main__":
    main()
