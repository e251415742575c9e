"""Sums of values that cross the wire in 16 bits."""

from __future__ import annotations

import tensorflow as tf


def sum_in_float32(values: list[tf.Tensor], wire_dtype: tf.DType) -> list[tf.Tensor]:
    """Each value's sum over all replicas, in float32, of values rounded to 16 bits; in replica context."""
    flat = tf.concat([tf.reshape(tf.cast(value, wire_dtype), [-1]) for value in values], 0)
    size = flat.shape.num_elements()
    message = tf.bitcast(tf.reshape(tf.pad(flat, [[0, size % 2]]), [-1, 2]), tf.int32)
    context = tf.distribute.get_replica_context()
    messages = [message]
    if context.num_replicas_in_sync > 1:
        messages = tf.unstack(context.all_gather(message[tf.newaxis], axis=0), context.num_replicas_in_sync)
    total = tf.zeros([size])
    for one in messages:
        total += tf.cast(tf.reshape(tf.bitcast(one, wire_dtype), [-1])[:size], tf.float32)
    parts = tf.split(total, [value.shape.num_elements() for value in values])
    return [tf.reshape(part, value.shape) for part, value in zip(parts, values, strict=True)]
