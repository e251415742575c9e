"""What a micro-batch costs on one device: K = 4 against K = 1 on the same micro-batches, all under `fit`.

    taskset -c 1 python benchmarks/accumulation_one_device.py [--rounds=8] [--optimizer_steps=8]

With K = 1 every micro-batch ends in an update; with K = 4 three of four end in an addition. What can't be had for less
is forward and backward for each micro-batch and one update for four of them, so that is measured too, with an optimizer
that only looks at its gradients:

    floor = look + (K1 - look) / 4
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from accumulation_meter import CLASSES, HIDDEN, Meter
from accumulation_tf_task import Tick

import tfdist

STEPS = 4
IMAGE = (28, 28, 1)
#: Of a model in each round, so that small ones are measured often enough.
MIN_ROUND_SECONDS = 0.5


class LookOnly(keras.optimizers.Optimizer):
    """Updates nothing, but takes a number of each gradient, so that TensorFlow computes them."""

    def __init__(self) -> None:
        super().__init__(learning_rate=0.0)

    def build(self, variables: list[Any]) -> None:
        super().build(variables)
        self.seen = self.add_variable((), name="seen")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign_add(self.seen, tf.reshape(gradient, [-1])[0])


def mlp() -> list[keras.Layer]:
    return [keras.layers.Flatten(), *(keras.layers.Dense(units, activation="relu") for units in HIDDEN)]


def cnn() -> list[keras.Layer]:
    convolutions = [keras.layers.Conv2D(filters, 3, activation="relu") for filters in (32, 64)]
    return [*convolutions, keras.layers.MaxPooling2D(2), keras.layers.Flatten(), keras.layers.Dense(64)]


def tiny() -> list[keras.Layer]:
    return [keras.layers.Flatten(), keras.layers.Dense(8, activation="relu")]


#: Name, layers, optimizer, rows of a micro-batch.
MODELS: list[tuple[str, Callable[[], list[keras.Layer]], type[keras.optimizers.Optimizer], int]] = [
    ("MLP, Adam", mlp, keras.optimizers.Adam, 128),
    ("MLP, SGD", mlp, keras.optimizers.SGD, 128),
    ("MLP, SGD", mlp, keras.optimizers.SGD, 512),
    ("CNN, Adam", cnn, keras.optimizers.Adam, 64),
    ("tiny, SGD", tiny, keras.optimizers.SGD, 64),
]


def variants(kind: type[keras.optimizers.Optimizer]) -> dict[str, tuple[Any, Callable[[], Any]]]:
    """Strategy and optimizer of what is compared."""
    accumulating = functools.partial(kind, gradient_accumulation_steps=STEPS)
    return {
        "look": (tfdist.OneDeviceStrategy(), LookOnly),
        "K1": (tfdist.OneDeviceStrategy(), kind),
        "K4": (tfdist.OneDeviceStrategy(), accumulating),
        "keras": (None, accumulating),
    }


def make_model(strategy: Any, layers: Callable[[], list[keras.Layer]], optimizer: Callable[[], Any]) -> keras.Model:
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = keras.Sequential([keras.Input(IMAGE), *layers(), keras.layers.Dense(CLASSES)])
        model.compile(optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def seconds(model: keras.Model, data: tf.data.Dataset, optimizer_steps: int) -> float:
    """Of the processor for a micro-batch, the lower quartile over groups of K: other programs disturb that least."""
    meter = Meter("", STEPS, time.process_time)
    model.fit(data, steps_per_epoch=optimizer_steps * STEPS, verbose=0, callbacks=[Tick(meter, 1)])
    return statistics.quantiles(meter.seconds(), n=4)[0] / STEPS


def rotated(names: list[str], number: int) -> list[str]:
    """Another one is first in each round."""
    first = number % len(names)
    return names[first:] + names[:first]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--optimizer_steps", type=int, default=8, help="of each model in each round, at least")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    print("\nOne device: milliseconds of one core for a micro-batch, and medians of the ratios of each round")
    print("| model | rows | look | K = 1 | K = 4 | K4 / K1 | K4 / floor | Keras' own K4 / K1 |")
    print("|---|---|---|---|---|---|---|---|")
    for name, layers, kind, rows in MODELS:
        x, y = np.random.rand(rows, *IMAGE).astype("float32"), np.random.randint(0, CLASSES, rows)
        data = tf.data.Dataset.from_tensors((x, y)).repeat()
        models = {one: make_model(strategy, layers, make) for one, (strategy, make) in variants(kind).items()}
        micro_batch_seconds = [seconds(model, data, 4) for model in models.values()]
        optimizer_steps = max(options.optimizer_steps, int(MIN_ROUND_SECONDS / (STEPS * min(micro_batch_seconds))))
        rounds = [
            {one: seconds(models[one], data, optimizer_steps) for one in rotated(list(models), number)}
            for number in range(options.rounds)
        ]
        look, one, four = (1e3 * statistics.median(each[key] for each in rounds) for key in ("look", "K1", "K4"))
        floors = [each["look"] + (each["K1"] - each["look"]) / STEPS for each in rounds]
        ratios = [
            statistics.median(each["K4"] / each["K1"] for each in rounds),
            statistics.median(each["K4"] / floor for each, floor in zip(rounds, floors, strict=True)),
            statistics.median(each["keras"] / each["K1"] for each in rounds),
        ]
        numbers = " | ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"| {name} | {rows} | {look:.2f} | {one:.2f} | {four:.2f} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
