"""Callbacks that write files write on the chief only; a backup knows the place in the data, and is whole or not there.

Upstream: CSVLogger, TensorBoard and BackupAndRestore open, overwrite and delete the same paths on every worker.
BackupAndRestore writes weights and metadata over the last ones, restores the epoch but not the batch, and after a
restart takes the epoch under way for the first one in what it saves.
Here: on the other workers CSVLogger writes to nowhere, TensorBoard to a directory that is removed, and
BackupAndRestore waits for the chief's file. Its files are renamed into place, and one more holds the positions in
TFRecord data by the number of optimizer steps, so that it fits the weights whenever the process is killed.
Seen in Keras 3.15.1. Can go when Keras knows of a chief, and restores the batch.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
from typing import Any

import keras
import tensorflow as tf

from tfdist._compat import hooks

_WEIGHTS = ".weights.h5"
_csv_begin = keras.callbacks.CSVLogger.on_train_begin
_save_backup = keras.callbacks.BackupAndRestore._save_model
_load_backup = keras.callbacks.BackupAndRestore._load_model
_backup_end = keras.callbacks.BackupAndRestore.on_train_end
_board_set_model = keras.callbacks.TensorBoard.set_model


def install() -> None:
    """Replace the callbacks' methods that touch files."""
    keras.callbacks.CSVLogger.on_train_begin = csv_begin
    keras.callbacks.TensorBoard.set_model = board_set_model
    keras.callbacks.BackupAndRestore._save_model = save_backup
    keras.callbacks.BackupAndRestore._load_model = load_backup
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
    if hooks.model_strategy(self.model) is None:
        _save_backup(self)
        return
    weights, metadata = self._weights_path, self._training_metadata_path
    is_chief = not _is_bystander(self.model)
    if is_chief:
        tf.io.gfile.makedirs(self.backup_dir)
        _save_positions(self)
        if self.double_checkpoint:
            _copy_if_there(weights, self._prev_weights_path)
            _copy_if_there(metadata, self._prev_training_metadata_path)
    self._weights_path = weights.replace(_WEIGHTS, ".new" + _WEIGHTS)
    self._training_metadata_path = metadata + ".new"
    try:
        if not is_chief:
            self.model.save_weights(self._weights_path, overwrite=True)
            return
        _save_backup(self)
        tf.io.gfile.rename(self._weights_path, weights, overwrite=True)
        tf.io.gfile.rename(self._training_metadata_path, metadata, overwrite=True)
    finally:
        self._weights_path, self._training_metadata_path = weights, metadata


def _copy_if_there(path: str, target: str) -> None:
    if tf.io.gfile.exists(path):
        tf.io.gfile.copy(path, target, overwrite=True)


def _save_positions(self: Any) -> None:
    """Add to the file before the weights are replaced, and keep what fits the weights that are there."""
    progress = hooks.progress_of(self.model) or hooks.FitProgress([], self._current_epoch)
    steps = _optimizer_steps(self.model)
    kept = self.__dict__.get("_tfdist_saved", {})
    entry = {"epoch": progress.epoch, "positions": [(one.epoch, one.step) for one in progress.positions]}
    self._tfdist_saved = {steps: entry}
    path = _positions_path(self)
    with tf.io.gfile.GFile(path + ".new", "w") as file:
        file.write(json.dumps({**kept, steps: entry}))
    tf.io.gfile.rename(path + ".new", path, overwrite=True)


@functools.wraps(_load_backup)
def load_backup(self: Any) -> None:
    """Upstream's; then `fit` goes on in the middle of the epoch, with the records that it has not used."""
    _load_backup(self)
    path = _positions_path(self)
    if hooks.model_strategy(self.model) is None or not tf.io.gfile.exists(self._weights_path):
        return
    if not tf.io.gfile.exists(path):
        return
    with tf.io.gfile.GFile(path, "r") as file:
        saved = json.loads(file.read())
    steps = _optimizer_steps(self.model)
    if steps in saved:
        self._tfdist_saved = {steps: saved[steps]}
        self.model._initial_epoch = self._current_epoch = saved[steps]["epoch"]
        hooks.note_resume(self.model, hooks.Resume(saved[steps]["epoch"], saved[steps]["positions"]))


def _positions_path(self: Any) -> str:
    return os.path.join(self.backup_dir, "data_positions.json")


def _optimizer_steps(model: Any) -> str:
    optimizer = model.optimizer
    return "0" if optimizer is None else str(int(optimizer.iterations.numpy()))


@functools.wraps(_backup_end)
def backup_end(self: Any, logs: Any = None) -> None:
    """Upstream's, which removes the backup, on the chief."""
    if not _is_bystander(self.model):
        _backup_end(self, logs)
