"""One worker of all_reduce_settings.py: `all_reduce_task.py SPEC`, JSON of "settings", "sizes", "steps", "hidden".

Prints a line of JSON: seconds of an all-reduce of each size, of a batch, and of a training step, memory, and the
buckets of a step.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tfdist._compat.tensorflow_control_inputs import let_run
from tfdist.gradients import reduction, sum_over_replicas

SPEC = json.loads(sys.argv[1])
WORKERS = len(json.loads(os.environ.get("TF_CONFIG", '{"cluster": {"worker": [0]}}'))["cluster"]["worker"])

EXAMPLES, WARM_UP = 128, 15


def make_strategy() -> Any:
    """None, "stock", or a tfdist strategy with some of its settings changed."""
    settings = SPEC["settings"]
    if settings is None:
        return None
    if settings == "stock":
        return tf.distribute.MultiWorkerMirroredStrategy()

    class Strategy(tfdist.MultiWorkerMirroredStrategy):
        collective_settings = dataclasses.replace(tfdist.MultiWorkerMirroredStrategy.collective_settings, **settings)

    return Strategy()


def make_model() -> keras.Model:
    """784, hidden layers of 1024, 10; with two of them 1.9 million parameters."""
    hidden = [keras.layers.Dense(1024, activation="relu") for _ in range(SPEC["hidden"])]
    model = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"])
    return model


def data() -> tf.data.Dataset:
    """Global batches."""
    rows, random = EXAMPLES * WORKERS, np.random.RandomState(0)
    arrays = random.rand(8 * rows, 784).astype("float32"), random.randint(0, 10, 8 * rows)
    return tf.data.Dataset.from_tensor_slices(arrays).batch(rows, drop_remainder=True).repeat().prefetch(2)


def seconds_of(call: Callable[[], Any], times: int) -> tuple[float, float]:
    """The median, and the mean of this process's seconds of a core."""
    found, begun = [], 0.0
    for turn in range(times + 3):
        if turn == 3:
            begun = time.process_time()
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return statistics.median(found[3:]), (time.process_time() - begun) / times


def all_reduce_seconds(strategy: Any, elements: int, times: int) -> tuple[float, float]:
    """Of one tensor."""
    with strategy.scope():
        value = tf.Variable(tf.ones([elements]))

    def in_replica() -> tf.Tensor:
        mine = [tf.identity(value)]
        if SPEC["settings"] == "stock":
            (total,) = tf.distribute.get_replica_context().all_reduce("SUM", mine)
        else:
            (total,) = sum_over_replicas(mine)
        return total[0]

    @tf.function
    def run() -> tf.Tensor:
        return strategy.run(in_replica)

    return seconds_of(lambda: float(strategy.experimental_local_results(run())[0]), times)


class Clock(keras.callbacks.Callback):
    """Times, and this process's seconds of a core, at the ends of epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[tuple[float, float]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def medians(self) -> tuple[float, float]:
        """Seconds and core seconds of a step, without the first epoch."""
        wall, cpu = np.median(np.diff(self.times, axis=0), axis=0) / WARM_UP
        return float(wall), float(cpu)


def fit_seconds(strategy: Any, steps: int) -> tuple[float, float]:
    """Of a step of `fit`."""
    if strategy is None:
        model = make_model()
    else:
        with strategy.scope():
            model = make_model()
    clock = Clock()
    model.fit(data(), epochs=1 + steps // WARM_UP, steps_per_epoch=WARM_UP, verbose=0, callbacks=[clock])
    return clock.medians()


def input_seconds(strategy: Any) -> tuple[float, float]:
    """Of a batch that nobody computes with."""
    batches = iter(data() if strategy is None else strategy.experimental_distribute_dataset(data()))
    return seconds_of(lambda: next(batches), 200)


def seconds_at(*values: tf.Tensor) -> tf.Tensor:
    """When values are there; beside other operations with effects."""
    with tf.control_dependencies(values):
        now = tf.timestamp()
    let_run(now.op)
    return now


def timeline(strategy: Any, steps: int = 20) -> list[list[float]]:
    """Of each bucket of a step, in ms since the step's begin: bytes, ready, back; the last is the whole gradient."""
    with strategy.scope():
        model = make_model()
        model.optimizer.build(model.trainable_variables)
    loss, stamps = keras.losses.SparseCategoricalCrossentropy(from_logits=True), []
    launch = reduction.all_reduce

    def stamped(value: tf.Tensor) -> tf.Tensor:
        ready, total = seconds_at(value), launch(value)
        stamps.append([tf.constant(4.0 * value.shape[0], tf.float64), ready, seconds_at(total)])
        return total

    @tf.function
    def step(batch: Any) -> Any:
        def in_replica(batch: Any) -> Any:
            begin = seconds_at(batch[0])
            del stamps[:]
            with tf.GradientTape() as tape:
                value = loss(batch[1], model(batch[0], training=True))
            gradients = tape.gradient(value, model.trainable_variables)
            done = seconds_at(*gradients)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return [[size, ready - begin, back - begin] for size, ready, back in [*stamps, [0.0, done, done]]]

        return strategy.run(in_replica, (batch,))

    reduction.all_reduce = stamped
    batches = iter(strategy.experimental_distribute_dataset(data()))
    found = [tf.nest.map_structure(float, step(next(batches))) for _ in range(steps)]
    reduction.all_reduce = launch
    return np.median(np.asarray(found)[steps // 2 :] * [1, 1e3, 1e3], axis=0).round(1).tolist()


def own_loop_seconds(strategy: Any, steps: int) -> tuple[float, float]:
    """Of a step of tf.distribute's own kind of loop, since stock TensorFlow has no `fit` here."""
    with strategy.scope():
        model = make_model()
        model.optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    batches = iter(strategy.experimental_distribute_dataset(data()))

    @tf.function
    def step(batch: Any) -> Any:
        def in_replica(batch: Any) -> tf.Tensor:
            with tf.GradientTape() as tape:
                value = loss(batch[1], model(batch[0], training=True)) / (EXAMPLES * WORKERS)
            gradients = tape.gradient(value, model.trainable_variables)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return value

        return strategy.run(in_replica, (batch,))

    clock = Clock()
    for epoch in range(1 + steps // WARM_UP):
        for _ in range(WARM_UP):
            value = step(next(batches))
        float(strategy.experimental_local_results(value)[0])
        clock.on_epoch_end(epoch)
    return clock.medians()


def main() -> None:
    strategy = make_strategy()
    found: dict[str, Any] = {}
    for name, elements, times in SPEC.get("sizes", []):
        found[name], found[f"{name} cpu"] = all_reduce_seconds(strategy, elements, times)
    found["input"], _ = input_seconds(strategy)
    if SPEC.get("steps"):
        measure = own_loop_seconds if SPEC["settings"] == "stock" else fit_seconds
        found["step"], found["cpu"] = measure(strategy, SPEC["steps"])
    if SPEC.get("timeline") and strategy is not None and SPEC["settings"] != "stock":
        found["buckets"] = timeline(strategy)
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with open("/proc/self/statm") as statm:
        found["left_mb"] = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    print("RESULT", json.dumps(found), flush=True)


main()
