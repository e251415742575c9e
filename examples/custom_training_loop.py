"""A loop of one's own with `strategy.run`, for what `fit` can't express.

tfdist launch --workers=2 examples/custom_training_loop.py
"""

from __future__ import annotations

import argparse

import keras
import tensorflow as tf
from common import build_model, load_data

import tfdist


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    strategy = tfdist.MultiWorkerMirroredStrategy()
    keras.utils.set_random_seed(0)
    train, test = load_data(args.data, batch_size=64)
    train = strategy.experimental_distribute_dataset(train)
    test = strategy.experimental_distribute_dataset(test)
    with strategy.scope():
        model = build_model(args.data)
        optimizer = keras.optimizers.Adam(1e-3)
        optimizer.build(model.trainable_variables)
        # Their mean is over the rows of all replicas, however many each has.
        loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def train_step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)  # reduces them over the replicas
        return loss

    def count_correct(images, labels):
        guesses = tf.argmax(model(images, training=False), axis=-1, output_type=tf.int64)
        hits = tf.cast(guesses == tf.cast(labels, tf.int64), tf.float32)
        return tf.reduce_sum(hits), tf.cast(tf.size(hits), tf.float32)

    @tf.function
    def distributed_train_step(batch):
        losses = strategy.run(train_step, args=batch)
        return strategy.reduce("SUM", losses, axis=None)

    @tf.function
    def distributed_count(batch):
        return [strategy.reduce("SUM", n, axis=None) for n in strategy.run(count_correct, batch)]

    for epoch in range(args.epochs):
        losses = [float(distributed_train_step(batch)) for batch in train]
        print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.4f}")
    correct, total = map(sum, zip(*(distributed_count(batch) for batch in test), strict=True))
    print(f"replicas: {strategy.num_replicas_in_sync}, accuracy: {float(correct / total):.4f}")


if __name__ == "__main__":
    main()
