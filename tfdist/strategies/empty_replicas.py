"""Replicas that have no row of a global batch, such as the first of two when the last batch is a single row.

They must take part in the collectives, but many kernels were not made for zero rows: oneDNN's max-pooling gradient
ends the process, means are NaN. So the replica computes on one row of zeros, whose row share is 0 in losses,
gradients and averages (gradients/step.py), whose metrics are taken back, and whose prediction is cut off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfdist._compat import hooks


def pad_if_empty(data: Any, rows: tf.Tensor) -> Any:
    """One row of zeros (empty strings, empty ragged rows) where there is none; else the data itself.

    Args:
        data: nesting of tensors with `rows` rows each, Nones and scalars.
        rows: an integer scalar.
    """
    if tf.get_static_value(rows):
        return data
    return tf.nest.map_structure(lambda leaf: _pad_leaf(leaf, rows), data)


def _pad_leaf(leaf: Any, rows: tf.Tensor) -> Any:
    if leaf is None or (not isinstance(leaf, tf.RaggedTensor) and leaf.shape.rank == 0):
        return leaf
    return tf.cond(rows > 0, lambda: leaf, lambda: _one_row(leaf))


def _one_row(leaf: Any) -> Any:
    if isinstance(leaf, tf.SparseTensor):
        shape = tf.concat([[1], leaf.dense_shape[1:]], 0)
        return tf.SparseTensor(leaf.indices, leaf.values, shape)
    if isinstance(leaf, tf.RaggedTensor):
        return tf.RaggedTensor.from_row_lengths(leaf.values, tf.zeros([1], leaf.row_splits.dtype), validate=False)
    return tf.zeros(tf.concat([[1], tf.shape(leaf)[1:]], 0), leaf.dtype)


def without_padding(value: Any, step: hooks.Step) -> Any:
    """A predicted output without the row that `pad_if_empty` added."""
    if isinstance(value, tf.SparseTensor) or (not isinstance(value, tf.RaggedTensor) and value.shape.rank == 0):
        return value
    rows = value.nrows() if isinstance(value, tf.RaggedTensor) else tf.shape(value)[0]
    return value[: tf.where(step.has_rows(), rows, tf.zeros_like(rows))]


@contextlib.contextmanager
def metrics_of_rows_only(model: Any, step: hooks.Step) -> Iterator[None]:
    """What a replica without rows adds to the metrics inside is taken back."""
    before = [tf.identity(variable.value) for variable in model.metrics_variables]
    yield
    has_rows = step.has_rows()
    if tf.get_static_value(has_rows):
        return
    for variable, value in zip(model.metrics_variables, before, strict=False):
        variable.assign(tf.where(has_rows, variable.value, value))
