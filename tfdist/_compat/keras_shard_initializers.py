"""Keras' initializers, drawn one shard at a time.

Upstream: Keras gives TensorFlow a function of no arguments, so a sharded variable is made as a whole in the chief and
sent to the ps tasks in slices. An initializer with a seed gives the same numbers each time it is called, and
VarianceScaling takes its scale from the shape that it's called with.
Here: each shard is drawn on its ps, with a seed made of the initializer's and the shard's place, and with the scale of
the whole variable; a large one is written block by block, since an initializer multiplies and adds to what it draws,
each time with another tensor of the same size, whose memory TensorFlow keeps. Other initializers (orthogonal, identity,
a user's own) are called once for the whole.
Seen in Keras 3.15.1. Can go when Keras' initializers take a part of a shape.
"""

from __future__ import annotations

import copy
import hashlib
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.initializers.random_initializers import compute_fans

_CONSTANT = ("Zeros", "Ones", "Constant")
_RANDOM = ("RandomUniform", "RandomNormal", "TruncatedNormal")
_SCALED = (
    *("VarianceScaling", "GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunUniform", "LecunNormal"),
)


# Larger ones are no faster, and the four that an initializer needs are little beside a process with TensorFlow.
_BLOCK_BYTES = 32 << 20


class ByShard:
    """What TensorFlow asks for the initial value of each shard, or of the whole if it makes no shards.

    Args:
        initializer: what Keras would call.
        shape: of the whole variable.
        dtype: Keras' name of it.
    """

    def __init__(self, initializer: Any, shape: tuple[int, ...], dtype: Any) -> None:
        self._initializer, self._shape, self._dtype = initializer, shape, tf.as_dtype(dtype)
        self._block_rows = max(1, _BLOCK_BYTES // max(1, math.prod(shape[1:]) * self._dtype.size))

    def __call__(self, partition_shape: Any = None, partition_offset: Any = None) -> Any:
        """The value; of a large shard memory that is to be filled."""
        if partition_shape is None:
            return self._initializer(self._shape, dtype=self._dtype.name)
        if partition_shape[0] > self._block_rows:
            return tf.raw_ops.Empty(shape=list(partition_shape), dtype=self._dtype)
        return self._rows(int(partition_offset[0]), int(partition_shape[0]))

    def fill(self, shard: Any, first_row: int) -> None:
        """Write what is missing into a shard."""
        rows = shard.shape[0]
        if rows <= self._block_rows:
            return
        with tf.device(shard.device):
            for begin in range(0, rows, self._block_rows):
                end = min(begin + self._block_rows, rows)
                value = self._rows(first_row + begin, end - begin)
                # `shard[begin:end]` would read all of it.
                tf.raw_ops.ResourceStridedSliceAssign(
                    ref=shard.handle, begin=[begin], end=[end], strides=[1], value=value
                )

    def _rows(self, first: int, count: int) -> Any:
        part = (count, *self._shape[1:])
        return _for_part(self._initializer, self._shape, part, first)(part, dtype=self._dtype.name)


def by_shard(initializer: Any, shape: tuple[int, ...], dtype: Any) -> ByShard | None:
    """How shards of a variable are initialized; None if the initializer can only be called for the whole."""
    return ByShard(initializer, shape, dtype) if _draws_shards(initializer) else None


def _draws_shards(initializer: Any) -> bool:
    names = (*_CONSTANT, *_RANDOM, *_SCALED)
    if type(initializer) not in {getattr(keras.initializers, name) for name in names}:
        return False
    return np.ndim(getattr(initializer, "value", 0)) == 0  # Constant takes arrays as well


def _for_part(initializer: Any, shape: tuple[int, ...], part: tuple[int, ...], first_row: int) -> Any:
    shard = copy.copy(initializer)
    if isinstance(getattr(shard, "seed", None), int):  # a SeedGenerator has a new seed each time
        digest = hashlib.sha256(f"{shard.seed} {first_row}".encode()).digest()
        shard.seed = int.from_bytes(digest[:4], "little") // 2
    if isinstance(shard, keras.initializers.VarianceScaling):
        shard.scale *= _fan(shard, part) / _fan(shard, shape)
    return shard


def _fan(initializer: Any, shape: tuple[int, ...]) -> float:
    """What VarianceScaling divides its scale by."""
    fan_in, fan_out = compute_fans(shape, input_axes=initializer.input_axes, output_axes=initializer.output_axes)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    return max(1.0, fans[initializer.mode])
