"""A worker of a job that loses one: `python -m tests.strategies.programs.lost_workers FOLDER FAULT VICTIM OPTIONS`.

After five steps the victim does what FAULT says and notes when, in FOLDER/fault. The others go on training, for ever if
nothing stops them; with a fault that passes, for two epochs. OPTIONS is JSON, the strategy's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist

FAULT_AT = 5
ROWS, BATCH = 480, 12
SLEEP_SECONDS = 8
#: Faults that pass.
PASSING = ("sleep_well", "wait_for_input")


class Fault(keras.callbacks.Callback):
    """Does it; before, every worker says that training is under way."""

    def __init__(self, folder: Path, fault: str, is_victim: bool) -> None:
        super().__init__()
        self._folder, self._fault, self._is_victim = folder, fault, is_victim

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch != FAULT_AT or self._fault == "none":
            return
        (self._folder / f"trains-{self.model.distribute_strategy.worker_index}").touch()
        if self._is_victim:
            fault = self._folder / "fault"
            fault.with_suffix(".new").write_text(json.dumps({"at": time.time(), "pid": os.getpid()}))
            fault.with_suffix(".new").rename(fault)
            getattr(self, self._fault)()
        self._fault = "none"

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def stop(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def fail(self) -> None:
        raise ValueError("a bad batch")

    def leave(self) -> None:
        sys.exit()

    def stop_training(self) -> None:
        self.model.stop_training = True

    def sleep_well(self) -> None:
        time.sleep(SLEEP_SECONDS)

    def wait_for_input(self) -> None:
        """See `generated`."""

    def wait(self) -> None:
        """For a fault that comes from outside."""


def generated(rows: int, is_victim: bool) -> Any:
    """Batches from Python, for one of which the victim waits; input is read some batches ahead."""

    def make_slow_batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in range(rows // BATCH):
            if is_victim and batch == 20:
                time.sleep(SLEEP_SECONDS)
            yield np.zeros((BATCH, 4), "float32"), np.zeros((BATCH, 1), "float32")

    specs = (tf.TensorSpec((BATCH, 4), tf.float32), tf.TensorSpec((BATCH, 1), tf.float32))
    return tf.data.Dataset.from_generator(make_slow_batches, output_signature=specs)


def main(folder: Path, fault: str, victim: int, options: dict[str, Any]) -> None:
    strategy = getattr(tfdist, options.pop("strategy", "MultiWorkerMirroredStrategy"))(**options)
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    is_victim = strategy.worker_index == victim
    data = tf.data.Dataset.from_tensor_slices((np.zeros((ROWS, 4), "float32"), np.zeros((ROWS, 1), "float32")))
    data = generated(ROWS, is_victim) if fault == "wait_for_input" else data.batch(BATCH)
    epochs = 2 if fault in PASSING else 100_000
    # What it asks of the others must end as well; a save takes part in nothing here.
    checkpoint = tfdist.callbacks.Checkpoint(folder / "checkpoints", every_seconds=3600)
    model.fit(data, epochs=epochs, verbose=0, callbacks=[Fault(folder, fault, is_victim), checkpoint])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))
