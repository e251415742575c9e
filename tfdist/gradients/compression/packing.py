"""Codes of a few bits, and elements with their places, as int32, which every device gathers."""

from __future__ import annotations

import tensorflow as tf

#: Places are sent as two bytes: how many elements are in each run of so many, and where in it.
_RUN = 1 << 16


def pack_codes(codes: tf.Tensor, bits: int) -> tf.Tensor:
    """Small numbers side by side.

    Args:
        codes: uint8 [n], below 2 ** bits.
        bits: 8, 4 or 1.

    Returns:
        int32 [n * bits / 32, rounded up].
    """
    per_byte = 8 // bits
    columns = tf.reshape(tf.pad(codes, [[0, -codes.shape.num_elements() % (4 * per_byte)]]), [-1, per_byte])
    packed = columns[:, 0]
    for place in range(1, per_byte):
        shift = tf.constant(place * bits, tf.uint8)
        packed = tf.bitwise.bitwise_or(packed, tf.bitwise.left_shift(columns[:, place], shift))
    return tf.bitcast(tf.reshape(packed, [-1, 4]), tf.int32)


def unpack_codes(packed: tf.Tensor, bits: int, count: int) -> tf.Tensor:
    """The first `count` of the codes that `pack_codes` was given, uint8."""
    found = tf.reshape(tf.bitcast(packed, tf.uint8), [-1, 1])
    shifts = tf.constant([bits * place for place in range(8 // bits)], tf.uint8)
    codes = tf.bitwise.bitwise_and(tf.bitwise.right_shift(found, shifts), tf.constant(2**bits - 1, tf.uint8))
    return tf.reshape(codes, [-1])[:count]


def packed_length(count: int, bits: int) -> int:
    """Length of what `pack_codes` returns."""
    return -(-count * bits // 32)


def pack_sparse(values: tf.Tensor, places: tf.Tensor, size: int) -> tf.Tensor:
    """Elements of a flat tensor in six bytes each.

    Args:
        values: float32 [k].
        places: int64 [k], ascending.
        size: of the tensor.

    Returns:
        int32 [k + k / 2, rounded up, and one for every 65,536 of `size`].
    """
    runs = -(-size // _RUN)
    counts = tf.math.unsorted_segment_sum(tf.ones(places.shape, tf.int32), places // _RUN, runs)
    offsets = tf.cast(tf.pad(places % _RUN, [[0, places.shape.num_elements() % 2]]), tf.uint16)
    return tf.concat([tf.bitcast(values, tf.int32), tf.bitcast(tf.reshape(offsets, [-1, 2]), tf.int32), counts], 0)


def unpack_sparse(message: tf.Tensor, count: int, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The `count` values and places that `pack_sparse` was given."""
    runs = -(-size // _RUN)
    values, packed, counts = tf.split(message, [count, (count + 1) // 2, runs])
    offsets = tf.cast(tf.reshape(tf.bitcast(packed, tf.uint16), [-1])[:count], tf.int64)
    run = tf.searchsorted(tf.cumsum(counts), tf.range(count), side="right", out_type=tf.int64)
    return tf.bitcast(values, tf.float32), run * _RUN + offsets
