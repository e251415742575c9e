"""What a step waits for when a checkpoint is due: tfdist's Checkpoint against Keras' two callbacks, in the same run.

    python benchmarks/checkpoint.py [--megabytes 1 10 100] [--rounds=3] [--directory=PATH]

Models of so many MB of weights with Adam, so three times that to save, on one device; a save every 50 steps. The wait
is what the step that saves takes longer than a step without any callback: medians of both, and the shortest of both,
which say what the work is on a machine that does other work too. The callbacks alternate.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tfdist.checkpoint.background import BackgroundWriter

EVERY, SAVES, ROWS = 50, 3, 16
STEPS = EVERY * SAVES + 2
LAYERS = 4
OURS = "tfdist.Checkpoint"
#: Beside `none`: all that training goes on from, in one place.
CALLBACKS: dict[str, Callable[[Path], list[Any]]] = {
    "none": lambda folder: [],
    OURS: lambda folder: [tfdist.callbacks.Checkpoint(folder, every_steps=EVERY)],
    "BackupAndRestore": lambda folder: [keras.callbacks.BackupAndRestore(folder, save_freq=EVERY)],
    "ModelCheckpoint": lambda folder: [keras.callbacks.ModelCheckpoint(folder / "{batch}.keras", save_freq=EVERY)],
}


class Clock(keras.callbacks.Callback):
    """Notes when each step begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begins: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begins.append(time.perf_counter())

    def steps(self) -> list[float]:
        """Seconds of each step, with what callbacks do behind it."""
        return [end - begin for begin, end in itertools.pairwise(self.begins)]


class Writes:
    """Seconds of writes behind training's back."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        run = BackgroundWriter._run

        def timed(writer: BackgroundWriter, write: Callable[[], object]) -> None:
            begin = time.perf_counter()
            run(writer, write)
            self.seconds.append(time.perf_counter() - begin)

        BackgroundWriter._run = timed


def make_model(megabytes: float) -> keras.Model:
    """Square layers."""
    units = round((megabytes * 1e6 / 4 / LAYERS) ** 0.5)
    layers = [keras.layers.Dense(units, "tanh", use_bias=False) for _ in range(LAYERS)]
    model = keras.Sequential([keras.Input((units,)), *layers])
    model.compile("adam", "mse")
    return model


def measure(model: keras.Model, callbacks: list[Any]) -> list[float]:
    x = np.random.rand(ROWS, model.input_shape[1]).astype("float32")
    data = tf.data.Dataset.from_tensors((x, x)).repeat(STEPS)
    clock = Clock()
    model.fit(data, verbose=0, callbacks=[clock, *callbacks])
    return clock.steps()


def compare(megabytes: float, rounds: int, directory: str | None, writes: Writes) -> None:
    model = make_model(megabytes)
    measure(model, [])
    steps: dict[str, list[list[float]]] = {name: [] for name in CALLBACKS}
    writes.seconds.clear()
    for _ in range(rounds):
        for name, make in CALLBACKS.items():
            with tempfile.TemporaryDirectory(dir=directory) as folder:
                steps[name].append(measure(model, make(Path(folder))))
    saving = {
        name: [run[EVERY * (save + 1) - 1] for run in runs for save in range(SAVES)] for name, runs in steps.items()
    }
    quiet = [*itertools.chain(*steps["none"])]
    middle, least = waits(saving, quiet, statistics.median), waits(saving, quiet, min)
    for name in [*CALLBACKS][1:]:
        write = f"{1e3 * statistics.median(writes.seconds):.0f}" if name == OURS else ""
        print(
            f"| {megabytes:g} | {1e3 * statistics.median(quiet):.1f} | {name} "
            f"| {1e3 * middle[name]:.1f} | {middle[name] / middle[OURS]:.2f} "
            f"| {1e3 * least[name]:.1f} | {least[name] / least[OURS]:.2f} | {write} |",
            flush=True,
        )


def waits(
    saving: dict[str, list[float]], quiet: list[float], which: Callable[[list[float]], float]
) -> dict[str, float]:
    """By how much such a step is longer."""
    return {name: which(steps) - which(quiet) for name, steps in saving.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory")
    options = parser.parse_args()
    writes = Writes()
    print("| MB of weights | step, ms | callback | wait, ms | to tfdist | shortest, ms | to tfdist | write, ms |")
    print("|---|---|---|---|---|---|---|---|")
    for megabytes in options.megabytes:
        compare(megabytes, options.rounds, options.directory, writes)


if __name__ == "__main__":
    main()
