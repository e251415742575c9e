"""Adagrad changes the rows that a gradient is of, and looks at no others.

Upstream: `Adagrad.update_step` takes the square root of the whole accumulator, of which it then uses the rows of the
gradient. For an embedding each step costs as much as the table is large, and memory for two more of its size.
Here: on parameter servers the rows are read first. The numbers are upstream's. The other optimizers with slots change
rows without a gradient too, since their slots decay, so their steps do cost a whole table.
Seen in Keras 3.15.1. Can go when Keras reads rows first.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.tensorflow_sharded_variables import Shards

_update_step = keras.optimizers.Adagrad.update_step


def install() -> None:
    """Replace `Adagrad.update_step`."""
    keras.optimizers.Adagrad.update_step = update_step


def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
    """Upstream's; of rows alone where the gradient is of rows."""
    step = hooks.current_step()
    is_elsewhere = isinstance(variable, Shards) or (step is not None and step.is_concurrent)
    if not (is_elsewhere and isinstance(gradient, tf.IndexedSlices)):
        _update_step(self, gradient, variable, learning_rate)
        return
    values, rows = tf.cast(gradient.values, variable.dtype), gradient.indices
    accumulator = self._accumulators[self._get_variable_index(variable)]
    self.assign_add(accumulator, tf.IndexedSlices(tf.square(values), rows, gradient.dense_shape))
    sums = accumulator.value.sparse_read(rows)
    change = tf.cast(learning_rate, variable.dtype) * values / tf.sqrt(sums + self.epsilon)
    self.assign_sub(variable, tf.IndexedSlices(change, rows, gradient.dense_shape))
