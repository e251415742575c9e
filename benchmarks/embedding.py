"""Steps/s of `fit` with an embedding: looked up in shards, on one ps, and with the whole table read in each step.

    python benchmarks/embedding.py [--rows=1000000] [--width=64] [--rounds=15] [--steps=128] [--pulled_steps=8]

Same cluster (2 workers, 2 ps), data and layers, SGD. Keras' own Embedding reads its whole variable, wherever it lies,
which is what `pulled` does: under `fit`, and in a loop written by hand on ClusterCoordinator as TensorFlow's guide
shows it. Ways take turns; each round gives a ratio to shards in that round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist

BATCH, IDS = 64, 8


class Pulled(keras.layers.Embedding):
    """As Keras' is without tfdist: `keras.ops.take` turns the variable into a tensor, and takes the rows of that."""

    def call(self, inputs: Any) -> Any:
        return keras.ops.take(tf.convert_to_tensor(self.embeddings), inputs, axis=0)


class Partitioner:
    """Shards for what is made while `shards` is more than 1; a process can have but one strategy."""

    shards = 1

    def __call__(self, shape: Any, dtype: Any, **_: Any) -> list[int]:
        return [self.shards if shape[0] > 10_000 else 1] + [1] * (len(shape) - 1)


def make_model(embedding: type, options: argparse.Namespace) -> keras.Model:
    layers = [embedding(options.rows, options.width), keras.layers.Flatten(), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((IDS,), dtype="int32"), *layers])


def batches(rows: int) -> tf.data.Dataset:
    random = np.random.default_rng(0)
    ids = random.integers(0, rows, (4096, IDS)).astype("int32")
    targets = random.standard_normal((4096, 1)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((ids, targets)).batch(BATCH, True).repeat()


def with_fit(strategy: Any, embedding: type, options: argparse.Namespace) -> Callable[[int], None]:
    with strategy.scope():
        model = make_model(embedding, options)
        model.compile(keras.optimizers.SGD(0.01), "mse")
    data = batches(options.rows)
    return lambda steps: model.fit(data, steps_per_epoch=steps, verbose=0) and None


def by_hand(strategy: Any, coordinator: Any, options: argparse.Namespace) -> Callable[[int], None]:
    with strategy.scope():
        model, optimizer, loss = (
            make_model(Pulled, options),
            keras.optimizers.SGD(0.01),
            keras.losses.MeanSquaredError(),
        )
        metric = keras.metrics.Mean()
        optimizer.build(model.trainable_variables)

    def step(batch: Any) -> None:
        x, y = batch
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        metric.update_state(value)

    @tf.function
    def execution(iterator: Any) -> None:
        strategy.run(step, args=(next(iterator),))

    iterator = iter(coordinator.create_per_worker_dataset(lambda: batches(options.rows)))

    def run(steps: int) -> None:
        for _ in range(steps):
            coordinator.schedule(execution, args=(iterator,))
        coordinator.join()
        float(metric.result())

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in {"rows": 1_000_000, "width": 64, "rounds": 15, "steps": 128, "pulled_steps": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tfdist.cluster.local(workers=2, ps=2) as cluster:
        partitioner = Partitioner()
        strategy = tfdist.ParameterServerStrategy(cluster, variable_partitioner=partitioner)
        coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        partitioner.shards = 2
        ways = {"shards": (with_fit(strategy, keras.layers.Embedding, options), options.steps)}
        partitioner.shards = 1
        ways["whole"] = with_fit(strategy, keras.layers.Embedding, options), options.steps
        ways["pulled"] = with_fit(strategy, Pulled, options), options.pulled_steps
        ways["pulled, by hand"] = by_hand(strategy, coordinator, options), options.pulled_steps
        for run, _ in ways.values():
            run(2)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, (run, steps) in ways.items():
                begun = time.perf_counter()
                run(steps)
                rates[name].append(steps / (time.perf_counter() - begun))
    for name, values in rates.items():
        ratios = [mine / other for mine, other in zip(rates["shards"], values, strict=True)]
        spread = f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name}: {statistics.median(values):,.1f} steps/s; shards are {spread}")


if __name__ == "__main__":
    main()
