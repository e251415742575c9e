"""The one all-reduce of a step: row-weighted, before clipping, with None and sparse gradients left in place."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def all_reduce_gradients(gradients: list[Any], *, share: tf.Tensor | None = None) -> list[Any]:
    """Sum gradients over all replicas; call it in replica context.

        g = sum_r share_r * g_r

    Args:
        gradients: tensors, IndexedSlices and Nones; equal shapes and equal Nones on every replica.
        share: this replica's weight, a float scalar; None for 1. Where it is 0 the gradients may be anything, NaN too.

    Returns:
        The global gradients in the order given. IndexedSlices stay sparse; their rows are those of all replicas, one
        after another and not merged, which is what one device would have seen for the global batch.
    """
    present = [g for g in gradients if g is not None]
    if not present:
        return gradients
    if share is not None:
        present = [_weighted(g, share) for g in present]
    reduced = iter(sum_over_replicas(present))
    return [None if g is None else next(reduced) for g in gradients]


def average_over_replicas(values: list[tf.Tensor], *, share: tf.Tensor) -> list[tf.Tensor]:
    """The share-weighted mean of each value over all replicas, in one all-reduce; call it in replica context."""
    return sum_over_replicas([_weighted(v, share) for v in values])


def _weighted(gradient: Any, share: tf.Tensor) -> Any:
    # multiply_no_nan: a mean over no rows is NaN, and must not spread from a replica that had none.
    if isinstance(gradient, tf.IndexedSlices):
        values = tf.math.multiply_no_nan(gradient.values, tf.cast(share, gradient.values.dtype))
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return tf.math.multiply_no_nan(gradient, tf.cast(share, gradient.dtype))


def sum_over_replicas(values: list[Any]) -> list[Any]:
    """Each value's sum over all replicas, in one all-reduce for each dtype; call it in replica context.

    Args:
        values: tensors and IndexedSlices, of equal shapes on every replica; IndexedSlices may have any number of rows.
    """
    context = tf.distribute.get_replica_context()
    sums: list[Any] = [None] * len(values)
    for dtype in sorted({value.dtype.name for value in values}):
        places = [place for place, value in enumerate(values) if value.dtype.name == dtype]
        reduced = context.all_reduce(tf.distribute.ReduceOp.SUM, [values[place] for place in places])
        for place, total in zip(places, reduced, strict=True):
            sums[place] = total
    return sums
