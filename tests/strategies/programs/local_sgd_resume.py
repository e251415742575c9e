"""Trains on TFRecords with a backup every few steps, in the middle of periods; killed, and started again.

`python -m tests.strategies.programs.local_sgd_resume FOLDER DEVICES INNER_STATE BACKUP [VICTIM]`; BACKUP is "keras" or
"tfdist", the callback; VICTIM is the worker that ends itself.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfdist
from tests.strategies.programs.local_sgd import make_strategy
from tests.strategies.programs.local_sgd_cases import flat, nesterov
from tfdist._compat.keras_averaging import averaging_of, rule_state_of

#: 1,437 images in batches of 100 are 15 steps an epoch.
BATCH_SIZE, EPOCHS, SAVE_EVERY, SYNC_EVERY = 100, 2, 6, 4
KILLED_AT = (1, 11)


class Kill(keras.callbacks.Callback):
    """Ends the process at a batch of an epoch: after steps that no averaging and no backup has seen."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)


def make_backup(kind: str, folder: Path) -> Any:
    if kind == "tfdist":
        return tfdist.callbacks.Checkpoint(folder, every_steps=SAVE_EVERY)
    return keras.callbacks.BackupAndRestore(folder, save_freq=SAVE_EVERY, delete_checkpoint=False)


def main(folder: Path, devices: int, inner_state: Any, backup: str, victim: int) -> None:
    options = {"sync_every_steps": SYNC_EVERY, "fragments": 2, "overlap_steps": 1 if inner_state == "average" else 0}
    strategy = make_strategy(devices, outer_optimizer=nesterov, inner_state=inner_state, **options)
    keras.utils.set_random_seed(3)
    with strategy.scope():
        layers = [keras.layers.Flatten(), keras.layers.Dense(16, activation="relu"), keras.layers.BatchNormalization()]
        layers += [keras.layers.Dense(10, activation="softmax")]
        model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        model.compile("adam", "sparse_categorical_crossentropy")
        data = tfdist.data.digits("train", batch_size=BATCH_SIZE, shuffle=True)
    callbacks = [make_backup(backup, folder / "backup")]
    callbacks += [Kill()] if strategy.worker_index == victim else []
    model.fit(data, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    averaging = averaging_of(model.optimizer)
    outer = [variable.numpy() for fragment in averaging.fragments for variable in fragment.state]
    inner = averaging.gathered_rule_state()
    if inner_state == "keep":
        # Or nothing would be lost by saving the chief's alone.
        assert any(np.any(state[0] != state[-1]) for state in inner)
    np.savez(
        folder / f"{strategy.worker_index}.npz",
        weights=flat(model.get_weights()),
        outer=flat(outer),
        inner=flat(inner),
        own=flat([variable.numpy() for variable in rule_state_of(model.optimizer)]),
        iterations=int(model.optimizer.iterations),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]) if len(sys.argv) > 5 else -1)
