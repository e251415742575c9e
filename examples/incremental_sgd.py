"""Incremental SGD: each worker trains on a part of the data by itself, and the changes are averaged.

    tfdist launch --workers=4 --ps=1 examples/incremental_sgd.py
    tfdist launch --workers=10 --ps=1 examples/incremental_sgd.py --data=mnist --part_records=1000 --epochs=12

A perceptron on the digits that come with tfdist, or on MNIST. Parameters travel twice for each part, not for each step.
Without the launcher it starts two workers and a parameter server by itself: python examples/incremental_sgd.py
"""

from __future__ import annotations

import argparse

import keras
from common import IMAGE_SHAPES, load_data
from parameter_server import cluster

import tfdist


def build_perceptron(data: str) -> keras.Model:
    """One hidden layer of 256."""
    return keras.Sequential(
        [
            keras.layers.Input(IMAGE_SHAPES[data]),
            keras.layers.Flatten(),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--part_records", type=int, default=128, help="records of which a worker sends the change")
    parser.add_argument("--batch_size", type=int, default=16, help="rows of one worker's step")
    parser.add_argument("--learning_rate", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()

    with cluster() as job:
        strategy = tfdist.ParameterServerStrategy(job, update=tfdist.updates.Incremental(args.part_records))
        keras.utils.set_random_seed(0)
        with strategy.scope():
            train, test = load_data(args.data, args.batch_size)
            model = build_perceptron(args.data)
            model.compile(
                keras.optimizers.SGD(args.learning_rate),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )

        history = model.fit(train, epochs=args.epochs, validation_data=test, shuffle=False, verbose=2).history
        print(
            f"workers: {len(job.addresses('worker'))}, steps: {int(model.optimizer.iterations)}, "
            f"best accuracy: {max(history['val_accuracy']):.4f}"
        )


if __name__ == "__main__":
    main()
