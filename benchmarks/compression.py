"""What compressed gradients learn, and what they send: each way against none, on images and on text.

    TFDIST_DATA_DIR=... python benchmarks/compression.py [--tasks=mnist,text,text_sgd] [--seeds=3] [--steps=400]
        [--replicas=2] [--width=128]

Replicas are parts of this machine's CPU. Bytes are what the strategy counts that each of them sends in a step of dense
gradients, which tests/gradients/test_compression_fit.py compares with the kernel's count between two processes. Prints
rows of a table: the mean over seeds and its spread, bytes, and microseconds a step against none.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tfdist.gradients import Cast, Compressor, PowerSGD, Quantize, TopK

DATA = Path(os.environ.get("TFDIST_DATA_DIR", "."))
TIME = 32
WARM_UP = 50


class Way(NamedTuple):
    """A compressor, and where the momentum of SGD is."""

    compressor: Compressor | None
    sgd_momentum: float = 0.9


WAYS = {
    "none": Way(None),
    "Cast('bfloat16')": Way(Cast()),
    "PowerSGD(rank=4)": Way(PowerSGD(rank=4, start_step=WARM_UP)),
    "PowerSGD(rank=1)": Way(PowerSGD(rank=1, start_step=WARM_UP)),
    "TopK(0.01)": Way(TopK(0.01, warmup_steps=4 * WARM_UP)),
    "TopK(0.01, momentum=0.9)": Way(TopK(0.01, momentum=0.9, warmup_steps=4 * WARM_UP), sgd_momentum=0.0),
    "Quantize(8)": Way(Quantize(8)),
    "Quantize(4)": Way(Quantize(4)),
    "Quantize(1)": Way(Quantize(1)),
    **{
        f"PowerSGD({rank}, 'bfloat16')": Way(PowerSGD(rank, start_step=WARM_UP, dtype="bfloat16"))
        for rank in (4, 7, 14)
    },
}


class Task(NamedTuple):
    """Something to learn.

    Attributes:
        model: makes a compiled model, given a way and the transformer's width.
        data: training batches without an end, given a seed, and arrays to evaluate on.
        score: what is evaluated.
    """

    score: str
    model: Callable[[Way, int], keras.Model]
    data: Callable[[int], tuple[tf.data.Dataset, tuple[np.ndarray, np.ndarray]]]


def cnn(way: Way, width: int) -> keras.Model:
    """228,000 parameters; SGD with momentum."""
    layers = [keras.layers.Conv2D(filters, 3, 2, activation="relu") for filters in (16, 32)]
    layers += [keras.layers.Flatten(), keras.layers.Dense(192, activation="relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=way.sgd_momentum), loss, metrics=["accuracy"])
    return model


def images(seed: int) -> tuple[tf.data.Dataset, tuple[np.ndarray, np.ndarray]]:
    """MNIST in batches of 64."""
    with np.load(DATA / "mnist.npz") as file:
        x, y, test_x, test_y = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    data = tf.data.Dataset.from_tensor_slices((x[..., None] / np.float32(255), y)).shuffle(len(x), seed=seed)
    return data.repeat().batch(64), (test_x[..., None] / np.float32(255), test_y)


def with_adam(way: Way, width: int) -> keras.Model:
    """The optimizer that transformers are trained with."""
    return transformer(keras.optimizers.Adam(2e-3), width)


def with_sgd(way: Way, width: int) -> keras.Model:
    """The optimizer that the papers of PowerSGD and TopK have; the rate is the best of 0.1, 0.15, 0.3 and 1."""
    return transformer(keras.optimizers.SGD(0.15, momentum=way.sgd_momentum, global_clipnorm=1.0), width)


def transformer(optimizer: keras.optimizers.Optimizer, width: int) -> keras.Model:
    """A decoder of one block, 268,000 parameters if it is 128 wide."""
    inputs = keras.Input((TIME,), dtype="int32")
    hidden = keras.layers.Embedding(256, width)(inputs)
    hidden += keras.layers.Embedding(TIME, width)(keras.ops.arange(TIME)[None])
    normal = keras.layers.LayerNormalization()(hidden)
    hidden += keras.layers.MultiHeadAttention(4, width // 4)(normal, normal, use_causal_mask=True)
    wide = keras.layers.Dense(4 * width, activation="gelu")(keras.layers.LayerNormalization()(hidden))
    hidden += keras.layers.Dense(width)(wide)
    model = keras.Model(inputs, keras.layers.Dense(256)(keras.layers.LayerNormalization()(hidden)))
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def text(seed: int) -> tuple[tf.data.Dataset, tuple[np.ndarray, np.ndarray]]:
    """Tiny Shakespeare, 32 runs of 32 characters a batch; its last tenth is held out."""
    characters = np.frombuffer((DATA / "tinyshakespeare.txt").read_bytes(), np.uint8).astype("int32")
    rows = (len(characters) - 1) // TIME
    x, y = (characters[first : first + rows * TIME].reshape(rows, TIME) for first in (0, 1))
    train = rows * 9 // 10
    data = tf.data.Dataset.from_tensor_slices((x[:train], y[:train])).shuffle(train, seed=seed)
    return data.repeat().batch(32), (x[train : train + 512], y[train : train + 512])


TASKS = {
    "mnist": Task("accuracy", cnn, images),
    "text": Task("loss", with_adam, text),
    "text_sgd": Task("loss", with_sgd, text),
}


def train(strategy: Any, task: Task, way: Way, seed: int, args: argparse.Namespace) -> tuple[float, int, float]:
    """Score, bytes that a replica sends in a step, seconds a step of the second half."""
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        model = task.model(way, args.width)
    (data, held_out), half = task.data(seed), args.steps // 2
    halves: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: halves.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: halves.append(time.perf_counter()),
    )
    model.fit(data, epochs=2, steps_per_epoch=half, verbose=0, callbacks=[clock])
    loss, *accuracy = np.atleast_1d(model.evaluate(*held_out, batch_size=256, verbose=0))
    dense = [v for v in model.trainable_variables if "embedding" not in v.path]
    whole = 4 * sum(int(np.prod(v.shape)) for v in dense) * 2 * (1 - 1 / strategy.num_replicas_in_sync)
    sent = strategy.sent_bytes(model.optimizer) if way.compressor else round(whole)
    return float(accuracy[0] if accuracy else loss), sent, (halves[3] - halves[2]) / half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="mnist,text")
    parser.add_argument("--ways", default="", help="parts of their names, apart by ';'; all without")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--width", type=int, default=128, help="of the transformer")
    args = parser.parse_args()
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * args.replicas)
    devices = [f"CPU:{index}" for index in range(args.replicas)]
    ways = {n: w for n, w in WAYS.items() if n == "none" or any(part in n for part in args.ways.split(";"))}
    for task_name in args.tasks.split(","):
        task, found = TASKS[task_name], {}
        print(f"\n{task_name}, {args.steps} steps, {args.seeds} seeds, {args.replicas} replicas\n")
        print(f"| compression | {task.score} | spread | bytes a step | to none | time to none |")
        print("|---|---|---|---|---|---|", flush=True)
        for name, way in ways.items():
            if "momentum" in name and task_name == "text":
                continue  # Adam has its own
            strategy = tfdist.MirroredStrategy(devices, compression=way.compressor)
            results = [train(strategy, task, way, seed, args) for seed in range(args.seeds)]
            scores = [score for score, _, _ in results]
            found[name] = results[0][1], statistics.median(seconds for *_, seconds in results)
            spread = max(scores) - min(scores)
            ratios = f"1/{found['none'][0] / found[name][0]:.1f} | {found[name][1] / found['none'][1]:.2f}"
            print(
                f"| {name} | {statistics.mean(scores):.4f} | {spread:.4f} | {found[name][0]:,} | {ratios} |", flush=True
            )


if __name__ == "__main__":
    main()
