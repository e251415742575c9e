"""Callbacks that write files write on the chief only.

Upstream: CSVLogger, TensorBoard and BackupAndRestore open, overwrite and delete the same paths on every worker.
Here: on the other workers CSVLogger writes to nowhere, TensorBoard to a directory that is removed at the end, and
BackupAndRestore only reads. Seen in Keras 3.15.1. Can go when Keras knows of a chief.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import keras

from tfdist._compat import hooks

_csv_begin = keras.callbacks.CSVLogger.on_train_begin
_board_set_model = keras.callbacks.TensorBoard.set_model
_board_end = keras.callbacks.TensorBoard.on_train_end


def install() -> None:
    """Replace the callbacks' methods that touch files."""
    keras.callbacks.CSVLogger.on_train_begin = csv_begin
    keras.callbacks.TensorBoard.set_model = board_set_model
    keras.callbacks.TensorBoard.on_train_end = board_end
    for name in ("_save_model", "on_train_end"):
        upstream = getattr(keras.callbacks.BackupAndRestore, name)
        setattr(keras.callbacks.BackupAndRestore, name, _on_chief(upstream))


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
    """Upstream's; where this process is not the chief, into a directory that is removed when training ends."""
    if _is_bystander(model):
        self.log_dir = tempfile.mkdtemp(prefix="tfdist-tensorboard-")
        self._tfdist_discard = self.log_dir
    _board_set_model(self, model)


@functools.wraps(_board_end)
def board_end(self: Any, logs: Any = None) -> None:
    """Upstream's, then the removal."""
    _board_end(self, logs)
    discard = getattr(self, "_tfdist_discard", None)
    if discard is not None:
        shutil.rmtree(discard, ignore_errors=True)


def _on_chief(upstream: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(upstream)
    def on_chief(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_bystander(self.model):
            return None
        return upstream(self, *args, **kwargs)

    return on_chief
