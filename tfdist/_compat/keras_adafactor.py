"""Adafactor changes tables on a mesh as a whole.

Upstream: rows are added up to a table of a size that the graph doesn't know, and `ops.divide` of rows by a dense tensor
looks for zeros and NaNs in all of that and has a branch for the rows that it finds: DTensor can lay out neither.
Here: where the gradient of a table on a mesh is of rows g_i, the quotient is the table of their sums, and the root mean
square of the update, which upstream takes of the rows one by one, comes from the sums of their squares:

    u = sum_i g_i / sqrt(v)         rms(u)^2 = mean(sum_i g_i^2 / v)

Seen in Keras 3.15.1 and TensorFlow 2.21. Can go when DTensor lays out `tf.where`.
"""

from __future__ import annotations

import threading
from typing import Any

import keras
import tensorflow as tf
from keras.src.optimizers import adafactor

from tfdist._compat.tensorflow_dtensor_variables import MeshVariable, dense_of

_update_step = keras.optimizers.Adafactor.update_step
_rms = keras.optimizers.Adafactor._rms


class Update(threading.local):
    """The update that this thread is at, which is one of a table on a mesh by rows."""

    #: Of the table; None for other updates.
    shape: tf.TensorShape | None = None
    #: sum_i g_i^2
    squares: Any = None
    #: u, and rms(u)^2.
    change: Any = None
    mean_square: Any = None


_update = Update()


class Operations:
    """`keras.ops` as Adafactor sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(keras.ops, name)

    def square(self, x: Any) -> Any:
        """Upstream's; on a mesh the squares of rows are a table."""
        if not self._are_rows(x):
            return keras.ops.square(x)
        _update.squares = dense_of(tf.IndexedSlices(tf.square(x.values), x.indices, x.dense_shape), _update.shape)
        return _update.squares

    def divide(self, x1: Any, x2: Any) -> Any:
        """Upstream's; on a mesh the quotient of rows is a table."""
        if not self._are_rows(x1):
            return keras.ops.divide(x1, x2)
        _update.mean_square = tf.reduce_mean(_update.squares / tf.square(x2))
        _update.change = dense_of(x1, _update.shape) / x2
        return _update.change

    def _are_rows(self, x: Any) -> bool:
        return _update.shape is not None and isinstance(x, tf.IndexedSlices)


def install() -> None:
    """Replace what `Adafactor.update_step` is made of."""
    keras.optimizers.Adafactor.update_step = update_step
    keras.optimizers.Adafactor._rms = rms
    adafactor.ops = Operations()


def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
    """Upstream's; by tables where a gradient of rows meets a table on a mesh."""
    _update.shape = variable.shape if isinstance(variable, MeshVariable) else None
    try:
        _update_step(self, gradient, variable, learning_rate)
    finally:
        _update.__dict__.clear()


def rms(self: Any, x: Any) -> Any:
    """Upstream's; of the rows one by one where the table is made of them."""
    return _rms(self, x) if x is not _update.change else tf.sqrt(_update.mean_square)
