"""Trains with checkpoints under `tfdist launch`; a task waits or dies where it is told to, once.

`python -m tests.launch.programs.train FOLDER [--pause=EPOCH,BATCH] [--slow=EPOCH,BATCH] [--kill=WORKER,EPOCH,BATCH]...
[--fail=WORKER,EPOCH,BATCH]`
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path
from typing import Any

import keras

import tfdist
from tests.launch.programs.regression import batches, build, keep_result

ROWS, BATCH, EPOCHS = 48, 8, 3


class At(keras.callbacks.Callback):
    """Does something at one step, unless a former attempt did."""

    def __init__(self, epoch: int, batch: int, marker: Path) -> None:
        super().__init__()
        self._at, self._marker, self._epoch = (epoch, batch), marker, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == self._at and not self._marker.exists():
            self._marker.touch()
            self.act()

    def act(self) -> None:
        raise NotImplementedError


class Die(At):
    def act(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Fail(At):
    """In every attempt."""

    def act(self) -> None:
        self._marker.unlink()
        raise ValueError("a bad record")


class Slow(At):
    """From then on, so that a signal comes before training is done."""

    is_slow = False

    def act(self) -> None:
        self.is_slow = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        time.sleep(0.3 * self.is_slow)


class Pause(At):
    """Until this process is killed from outside."""

    def act(self) -> None:
        time.sleep(120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pause")
    parser.add_argument("--slow")
    parser.add_argument("--kill", action="append", default=[])
    parser.add_argument("--fail")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    strategy = tfdist.MultiWorkerMirroredStrategy()
    index = strategy.worker_index
    keras.utils.set_random_seed(7)
    model = build(strategy, lambda: keras.layers.Dense(8, "relu"), lambda: keras.layers.Dropout(0.2))
    callbacks: list[Any] = [tfdist.callbacks.Checkpoint(options.folder / "checkpoints", every_steps=2)]
    if options.pause:
        epoch, batch = map(int, options.pause.split(","))
        callbacks.append(Pause(epoch, batch, options.folder / f"paused-{index}"))
    if options.slow:
        epoch, batch = map(int, options.slow.split(","))
        callbacks.append(Slow(epoch, batch, options.folder / f"slow-{index}"))
    for number, kill in enumerate(options.kill):
        victim, epoch, batch = map(int, kill.split(","))
        if victim == index:
            callbacks.append(Die(epoch, batch, options.folder / f"killed-{number}"))
    if options.fail:
        victim, epoch, batch = map(int, options.fail.split(","))
        if victim == index:
            callbacks.append(Fail(epoch, batch, options.folder / "failed"))
    history = model.fit(batches(ROWS, BATCH), epochs=EPOCHS, verbose=0, callbacks=callbacks)
    if strategy.is_chief:
        keep_result(options.folder, model, history)


if __name__ == "__main__":
    main()
