"""A script for `tfdist launch --mpi` that loses worker 1 once, and goes on: `... mpi_job FOLDER SIGNAL`.

In its first run worker 1 sends itself the signal in the middle of an epoch. Weights at the end are in FOLDER/RANK.npy.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist

ROWS, BATCH, EPOCHS, FAULT_AT = 400, 10, 3, 50


class Fault(keras.callbacks.Callback):
    """The signal, once."""

    def __init__(self, done: Path, name: str, worker: int) -> None:
        super().__init__()
        self._done, self._name, self._worker = done, name, worker

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        is_time = int(self.model.optimizer.iterations) == FAULT_AT
        if is_time and self._worker == 1 and not self._done.exists():
            self._done.touch()
            os.kill(os.getpid(), getattr(signal, self._name))


def main(folder: Path, name: str) -> None:
    strategy = tfdist.MultiWorkerMirroredStrategy(communication="mpi", heartbeat_timeout_seconds=10.0)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    random = np.random.RandomState(0)
    rows = (random.randn(ROWS, 6).astype("float32"), random.randint(0, 3, ROWS))
    fault = Fault(folder / "done", name, strategy.worker_index)
    data = tf.data.Dataset.from_tensor_slices(rows).batch(BATCH)
    model.fit(data, epochs=EPOCHS, verbose=0, callbacks=[tfdist.callbacks.Checkpoint(folder / "checkpoints"), fault])
    assert int(model.optimizer.iterations) == EPOCHS * ROWS // BATCH
    np.save(folder / f"{strategy.worker_index}.npy", np.concatenate([one.ravel() for one in model.get_weights()]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
