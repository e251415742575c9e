"""Sums over replicas of which 16 bits an element cross the wire, added up in float32.

With x_r the values of replica r of N, and round() to 16 bits:

    N = 2    s = round(x_0) + round(x_1)                        each replica receives n elements of 2 bytes
    N > 2    s = round(sum_r round(x_r)), by parts: replica p     2 (N - 1) / N n elements of 2 bytes
             adds up the p-th part of all, rounds it, and all
             replicas get it

A sum in float32 by a ring costs each replica 2 (N - 1) / N n elements of 4 bytes, so this is half. All replicas hold
the same bits: with two each adds the same two numbers, with more each part is added up in one place. With u = 2^-8 for
bfloat16 and 2^-11 for float16, s is off by at most u sum_r |x_r|, and with N > 2 by u |s| more, and float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfdist._compat.tensorflow_exchange import all_gather, all_to_all, can_exchange
from tfdist.gradients.buckets import in_buckets

#: Of the rounded values.
BUCKET_BYTES = 2 << 20


def sum_in_float32(values: list[tf.Tensor], wire_dtype: tf.DType | str = tf.bfloat16) -> list[tf.Tensor]:
    """Each value's sum over the replicas, the same bits on all; call it in replica context.

    Args:
        values: dense, float32, with static shapes that are equal on every replica.
        wire_dtype: what is sent, bfloat16 or float16.

    Returns:
        float32, in the order and the shapes of `values`; with one replica the values themselves.

    Raises:
        ValueError: a value or `wire_dtype` is something else.

    Example:
        >>> total, = sum_in_float32([gradient])
    """
    wire_dtype = _checked(values, wire_dtype)
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    if replicas == 1:
        return list(values)
    exchange = _direct(replicas, wire_dtype) if can_exchange() else _by_context(wire_dtype)
    return in_buckets(values, exchange, bucket_bytes=2 * BUCKET_BYTES)


def _checked(values: list[tf.Tensor], wire_dtype: tf.DType | str) -> tf.DType:
    dtype = tf.as_dtype(wire_dtype)
    if dtype not in (tf.bfloat16, tf.float16):
        raise ValueError(f"Expected: wire_dtype of 'bfloat16' or 'float16'. Received: wire_dtype={dtype.name!r}.")
    for value in values:
        if isinstance(value, tf.IndexedSlices) or value.dtype != tf.float32 or not value.shape.is_fully_defined():
            raise ValueError(
                f"Expected: dense float32 tensors with static shapes. Received: value={value}. Sum others exactly, "
                "with sum_over_replicas()."
            )
    return dtype


def _direct(replicas: int, wire_dtype: tf.DType) -> Callable[[tf.Tensor], tf.Tensor]:
    def by_gathering(flat: tf.Tensor) -> tf.Tensor:
        return _total(_gathered(tf.cast(flat, wire_dtype), replicas))

    def by_parts(flat: tf.Tensor) -> tf.Tensor:
        size = flat.shape.num_elements()
        padded = tf.pad(tf.cast(flat, wire_dtype), [[0, -size % replicas]])
        mine = tf.cast(_total(all_to_all(tf.reshape(padded, [replicas, -1]))), wire_dtype)
        return tf.cast(tf.reshape(_gathered(mine, replicas), [-1])[:size], tf.float32)

    return by_gathering if replicas == 2 else by_parts


def _by_context(wire_dtype: tf.DType) -> Callable[[tf.Tensor], tf.Tensor]:
    """By what replicas have in public: eagerly, and under strategies without collectives."""

    def by_gathering(flat: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        total = _total(context.all_gather(tf.cast(tf.cast(flat, wire_dtype), tf.float32)[tf.newaxis], axis=0))
        several = context.num_replicas_in_sync > 2
        return tf.cast(tf.cast(total, wire_dtype), tf.float32) if several else total

    return by_gathering


def _gathered(rounded: tf.Tensor, replicas: int) -> tf.Tensor:
    """All replicas' [n], as [replicas, n]."""
    size = rounded.shape.num_elements()
    # CollectiveGatherV2 knows no bfloat16, and in float16 oneDNN reports an error on many processors. It copies bits.
    pairs = tf.reshape(tf.pad(rounded, [[0, size % 2]]), [-1, 2])
    found = tf.bitcast(all_gather(tf.bitcast(pairs, tf.int32)), rounded.dtype)
    return tf.reshape(found, [replicas, -1])[:, :size]


def _total(rows: tf.Tensor) -> tf.Tensor:
    """The sum of rows in float32, one after the other, so that the order is the same on all replicas."""
    first, *rest = tf.unstack(tf.cast(rows, tf.float32))
    for row in rest:
        first += row
    return first
