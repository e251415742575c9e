"""Seconds a step of `fit` under tfdist.MirroredStrategy against stock tf.distribute.MirroredStrategy, same run.

    python benchmarks/step_overhead.py [--replicas=2] [--steps=200]

The model is so small that a step is overhead: input, dispatch, collectives, metrics. Runs alternate; the ratio of the
medians is what to quote.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist


def make_model(strategy: Any, steps_per_execution: int) -> keras.Model:
    with strategy.scope():
        model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"], steps_per_execution=steps_per_execution)
    return model


def seconds_a_step(model: keras.Model, data: tf.data.Dataset, steps: int) -> float:
    begin = time.perf_counter()
    model.fit(data, epochs=1, steps_per_epoch=steps, verbose=0)
    return (time.perf_counter() - begin) / steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * options.replicas)
    devices = [f"CPU:{i}" for i in range(options.replicas)]
    x, y = np.random.rand(128, 32).astype("float32"), np.random.randint(0, 10, 128)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(64).repeat()
    families = {"stock": tf.distribute.MirroredStrategy, "tfdist": tfdist.MirroredStrategy}
    models = {name: make_model(family(devices), 1) for name, family in families.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        seconds_a_step(model, data, 10)
    for _ in range(options.rounds):
        for name, model in models.items():
            times[name].append(seconds_a_step(model, data, options.steps))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        low, middle, high = (1e3 * value for value in (min(values), medians[name], max(values)))
        print(f"{name:8s} {middle:6.2f} ms a step, from {low:.2f} to {high:.2f}")
    print(f"tfdist / stock: {medians['tfdist'] / medians['stock']:.2f}")


if __name__ == "__main__":
    main()
