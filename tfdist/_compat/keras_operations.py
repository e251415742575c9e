"""Operations that DTensor has no rule for, or a wrong one, made of others.

Upstream: `tf.reverse` has no rule. `tf.repeat` makes tensors of five dimensions more than it was given, which DTensor
can't slice in the gradient; the step fails, and sometimes the next one too.
Here: under a strategy that splits operations, `keras.ops.flip` and `keras.ops.repeat` by a number gather, which only
moves numbers, as they do. Seen in Keras 3.15.1, TensorFlow 2.21. Can go when DTensor has both.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf
from keras.src.backend.tensorflow import numpy as operations

from tfdist._compat import hooks

_flip, _repeat = operations.flip, operations.repeat


def install() -> None:
    """Replace the functions in the backend's module."""
    operations.flip, operations.repeat = flip, repeat


def is_split() -> bool:
    strategy = hooks.active_strategy()
    return strategy is not None and strategy.splits_operations


@functools.wraps(_flip)
def flip(x: Any, axis: Any = None) -> Any:
    """Upstream's."""
    if not is_split():
        return _flip(x, axis)
    x = tf.convert_to_tensor(x)
    axes = range(x.shape.rank) if axis is None else [axis] if isinstance(axis, int) else axis
    for place in axes:
        x = tf.gather(x, tf.range(tf.shape(x)[place] - 1, -1, -1), axis=place)
    return x


@functools.wraps(_repeat)
def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Upstream's."""
    if not is_split() or axis is None or not isinstance(repeats, int):
        return _repeat(x, repeats, axis)
    x = tf.convert_to_tensor(x)
    return tf.gather(x, tf.range(tf.shape(x)[axis] * repeats) // repeats, axis=axis)
