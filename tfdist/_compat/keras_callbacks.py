"""Callbacks that write files write on the chief only.

Upstream: CSVLogger, TensorBoard and BackupAndRestore open, overwrite and delete the same paths on every worker.
Here: on the other workers CSVLogger writes to nowhere, TensorBoard to a directory that is removed, and
BackupAndRestore waits for the chief's file. Seen in Keras 3.15.1. Can go when Keras knows of a chief.
"""

from __future__ import annotations

import functools
import os
import tempfile
from typing import Any

import keras

from tfdist._compat import hooks

_csv_begin = keras.callbacks.CSVLogger.on_train_begin
_save_backup = keras.callbacks.BackupAndRestore._save_model
_backup_end = keras.callbacks.BackupAndRestore.on_train_end
_board_set_model = keras.callbacks.TensorBoard.set_model


def install() -> None:
    """Replace the callbacks' methods that touch files."""
    keras.callbacks.CSVLogger.on_train_begin = csv_begin
    keras.callbacks.TensorBoard.set_model = board_set_model
    keras.callbacks.BackupAndRestore._save_model = save_backup
    keras.callbacks.BackupAndRestore.on_train_end = backup_end


def _is_bystander(model: Any) -> bool:
    strategy = hooks.model_strategy(model)
    return strategy is not None and not strategy.writes_files


@functools.wraps(_csv_begin)
def csv_begin(self: Any, logs: Any = None) -> None:
    """Upstream's; nothing is kept where this process is not the chief."""
    if _is_bystander(self.model):
        self.filename = os.devnull
    _csv_begin(self, logs)


@functools.wraps(_board_set_model)
def board_set_model(self: Any, model: Any) -> None:
    """Upstream's; where this process is not the chief, into a directory that goes with the callback."""
    if _is_bystander(model):
        discard = self.__dict__.setdefault("_tfdist_discard", tempfile.TemporaryDirectory(prefix="tfdist-tensorboard-"))
        self.log_dir = discard.name
    _board_set_model(self, model)


@functools.wraps(_save_backup)
def save_backup(self: Any) -> None:
    """Upstream's; where this process is not the chief it takes part in the chief's save."""
    if _is_bystander(self.model):
        self.model.save_weights(self._weights_path, overwrite=True)
    else:
        _save_backup(self)


@functools.wraps(_backup_end)
def backup_end(self: Any, logs: Any = None) -> None:
    """Upstream's, which removes the backup, on the chief."""
    if not _is_bystander(self.model):
        _backup_end(self, logs)
