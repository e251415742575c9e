"""A script for `tfdist launch` whose chief has tasks killed, one in each epoch, and goes on from a backup.

python -m tests.strategies.programs.launched_faults FOLDER FAULT...

Each fault happens in an epoch of its own, the first in the first epoch, once: "worker", "ps" and "chief" kill that
task, "exit" and "raise" end the chief's script, "none" lets an epoch pass. What happens when is written to
FOLDER/events, a line of JSON each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.seen import Ids, seen

ROWS, BATCH = 600, 10
STEPS = ROWS // BATCH
FAULT_AT = 20
EXIT_CODE = 3
VICTIMS = {"worker": "worker-1", "ps": "ps-1"}


class Faults(keras.callbacks.Callback):
    """Has tasks killed, and notes what happens."""

    def __init__(self, folder: Path, faults: list[str], strategy: Any) -> None:
        super().__init__()
        self._folder, self._faults, self._strategy = folder, faults, strategy
        self._epoch = 0

    def note(self, what: str, **more: Any) -> None:
        iterations = int(self.model.optimizer.iterations)
        with (self._folder / "events").open("a") as file:
            file.write(json.dumps({"what": what, "at": time.time(), "iterations": iterations, **more}) + "\n")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self.note("epoch begins", epoch=epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            self.note("first step", epoch=self._epoch)
        fault = self._faults[self._epoch]
        done = self._folder / f"done-{self._epoch}"
        if batch == FAULT_AT and fault != "none" and not done.exists():
            done.touch()
            self.note(fault)
            self._do(fault)

    def _do(self, fault: str) -> None:
        if fault == "exit":
            sys.exit(EXIT_CODE)
        if fault == "raise":
            raise ValueError("the script's own mistake")
        victim = VICTIMS.get(fault, "chief-0")
        os.kill(int((self._folder / victim).read_text()), signal.SIGKILL)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        once = seen == dict.fromkeys(range(ROWS), 1)
        self.note("epoch ends", epoch=epoch, once=once, reported=self._strategy.reported_steps)


def data() -> tf.data.Dataset:
    x, y = np.random.RandomState(0).randn(ROWS, 4).astype("float32"), np.arange(ROWS, dtype="float32")[:, None]
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(ROWS).batch(BATCH)


def main(folder: Path, faults: list[str]) -> None:
    task = tfdist.cluster.resolve().task
    (folder / f"{task.type}-{task.index}").write_text(str(os.getpid()))
    strategy = tfdist.ParameterServerStrategy(patience_seconds=10)
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(1e-6), "mse", metrics=[Ids()])
    callbacks = [keras.callbacks.BackupAndRestore(folder / "backup"), Faults(folder, faults, strategy)]
    model.fit(data(), epochs=len(faults), callbacks=callbacks, verbose=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
