"""Asynchronous SGD with staleness under control: choose how a worker's gradient meets the parameters.

    tfdist launch --workers=4 --ps=1 examples/async_sgd.py
    tfdist launch --workers=10 --ps=1 examples/async_sgd.py --data=mnist --epochs=10
    tfdist launch --workers=4 --ps=1 examples/async_sgd.py --update=bounded

A CNN on the digits that come with tfdist, or on MNIST; plain SGD with clipped gradients and weight decay. The learning
rate is smaller than one worker alone would take: gradients of ten workers are nine updates old.
Without the launcher it starts two workers and a parameter server by itself: python examples/async_sgd.py
"""

from __future__ import annotations

import argparse

import keras
from common import build_model, load_data
from parameter_server import cluster

import tfdist

POLICIES = {
    "async": tfdist.updates.Async(),
    "bounded": tfdist.updates.BoundedStaleness(8),
    "aware": tfdist.updates.StalenessAware(),
    "compensated": tfdist.updates.DelayCompensated(),
    "accumulated": tfdist.updates.Accumulated(8),
    "elastic": tfdist.updates.ElasticAveraging(0.2, communicate_every_steps=8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", choices=POLICIES, default="async")
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--batch_size", type=int, default=32, help="rows of one worker's step")
    parser.add_argument("--learning_rate", type=float, default=0.05)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    with cluster() as job:
        strategy = tfdist.ParameterServerStrategy(job, update=POLICIES[args.update])
        keras.utils.set_random_seed(0)
        with strategy.scope():
            train, test = load_data(args.data, args.batch_size)
            model = build_model(args.data)
            model.compile(
                keras.optimizers.SGD(args.learning_rate, global_clipnorm=1.0, weight_decay=1e-4),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )

        history = model.fit(train, epochs=args.epochs, validation_data=test, shuffle=False, verbose=2).history
        workers = len(job.addresses("worker"))
        print(
            f"update: {args.update}, workers: {workers}, steps: {int(model.optimizer.iterations)}, "
            f"staleness: {history['staleness'][-1]:.1f}, best accuracy: {max(history['val_accuracy']):.4f}"
        )


if __name__ == "__main__":
    main()
