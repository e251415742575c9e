"""All-reduces and training steps of two workers through MPI and through TensorFlow's gRPC, in turns.

    mpiexec -n 2 python benchmarks/mpi.py [--rounds=5] [--batch=128] [--cpu_time]

Each worker has one core. `alone` is the step of one worker without a strategy, while the others wait; efficiency is its
time over that of a step of all workers, who have as many rows each. Medians of the rounds, and the fastest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

from tfdist.cluster import mpi

WORLD = mpi.world()
os.sched_setaffinity(0, {WORLD.Get_rank() % (os.cpu_count() or 1)})

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tfdist  # noqa: E402

WAYS = ("mpi", "grpc")
#: Of the first worker; what other programs do doesn't change it.
CPU_TIME = "--cpu_time" in sys.argv
clock = time.process_time if CPU_TIME else time.perf_counter
SIZES = {"4 KB": (1_000, 200), "4 MB": (1_000_000, 20), "100 MB": (25_000_000, 3)}


def all_reduce(strategy: Any, elements: int) -> Callable[[int], float]:
    """Seconds of one, as a mean of a number of them."""
    value = tf.ones(elements)

    @tf.function
    def reduced(value: tf.Tensor) -> tf.Tensor:
        def replica(value: tf.Tensor) -> tf.Tensor:
            return tfdist.gradients.sum_over_replicas([tf.identity(value)])[0]

        return strategy.run(replica, args=(value,))

    def seconds(count: int) -> float:
        begin = clock()
        for _ in range(count):
            total = reduced(value)
        total[0].numpy()
        return (clock() - begin) / count

    return seconds


def training(strategy: Any, batch: int) -> Callable[[int], float]:
    """Seconds of a step of an MLP 784-1024-1024-10, by SGD with momentum; None for no strategy."""
    layers = [keras.layers.Dense(1024, "relu"), keras.layers.Dense(1024, "relu"), keras.layers.Dense(10)]
    with strategy.scope() if strategy else tf.name_scope("alone"):
        model = keras.Sequential([keras.Input((784,)), *layers])
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
        optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    replicas = strategy.num_replicas_in_sync if strategy else 1
    generator = np.random.default_rng(WORLD.Get_rank())
    x = tf.constant(generator.random((batch, 784), "float32"))
    y = tf.constant(generator.integers(0, 10, batch))

    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True)) / (batch * replicas)
        optimizer.apply_gradients(
            zip(tape.gradient(value, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return value

    @tf.function
    def train(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return strategy.run(step, args=(x, y)) if strategy else step(x, y)

    def seconds(count: int) -> float:
        begin = clock()
        for _ in range(count):
            value = train(x, y)
        value.numpy()
        return (clock() - begin) / count

    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--cpu_time", action="store_true")
    options = parser.parse_args()
    strategies = {way: tfdist.MultiWorkerMirroredStrategy(communication=way) for way in WAYS}
    for size, (elements, count) in SIZES.items():
        report(size, {way: all_reduce(one, elements) for way, one in strategies.items()}, count, options.rounds)
    steps = {way: training(one, options.batch) for way, one in strategies.items()}
    alone = training(None, options.batch)
    if WORLD.Get_rank() > 0:
        alone = float  # the others wait
    report("step", {**steps, "alone": alone}, options.steps, options.rounds)


def report(what: str, ways: dict[str, Callable[[int], float]], count: int, rounds: int) -> None:
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, seconds in ways.items():
            mpi.wait(WORLD.Ibarrier())
            times[way].append(seconds(count))
            mpi.wait(WORLD.Ibarrier())
    if WORLD.Get_rank() == 0:
        kept = {way: [1e3 * one for one in each[1:]] for way, each in times.items()}
        said = [f"{way} {statistics.median(each):.3f} ({min(each):.3f})" for way, each in kept.items()]
        print(f"{what:7s} ms: {', '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
