"""Callbacks that write files write on the chief only.

Upstream: CSVLogger, TensorBoard and BackupAndRestore open, overwrite and delete the same paths on every worker.
Here: on the other workers CSVLogger writes to nowhere, TensorBoard to a directory that is removed, and
BackupAndRestore only reads. Seen in Keras 3.15.1. Can go when Keras knows of a chief.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from typing import Any

import keras

from tfdist._compat import hooks

_csv_begin = keras.callbacks.CSVLogger.on_train_begin
_board_set_model = keras.callbacks.TensorBoard.set_model


def install() -> None:
    """Replace the callbacks' methods that touch files."""
    keras.callbacks.CSVLogger.on_train_begin = csv_begin
    keras.callbacks.TensorBoard.set_model = board_set_model
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
    """Upstream's; where this process is not the chief, into a directory that goes with the callback."""
    if _is_bystander(model):
        discard = self.__dict__.setdefault("_tfdist_discard", tempfile.TemporaryDirectory(prefix="tfdist-tensorboard-"))
        self.log_dir = discard.name
    _board_set_model(self, model)


def _on_chief(upstream: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(upstream)
    def on_chief(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_bystander(self.model):
            return None
        return upstream(self, *args, **kwargs)

    return on_chief
