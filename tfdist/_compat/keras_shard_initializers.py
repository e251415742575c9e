"""Keras' initializers, drawn one shard at a time.

Upstream: Keras gives TensorFlow a function of no arguments, so a sharded variable is made as a whole in the chief and
sent to the ps tasks in slices. An initializer with a seed gives the same numbers each time it is called, and
VarianceScaling takes its scale from the shape that it's called with.
Here: each shard is drawn on its ps, with a seed made of the initializer's and the shard's place, and with the scale of
the whole variable. Other initializers (orthogonal, identity, a user's own) are called once for the whole.
Seen in Keras 3.15.1. Can go when Keras' initializers take a part of a shape.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras.src.initializers.random_initializers import compute_fans

_CONSTANT = ("Zeros", "Ones", "Constant")
_RANDOM = ("RandomUniform", "RandomNormal", "TruncatedNormal")
_SCALED = (
    *("VarianceScaling", "GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunUniform", "LecunNormal"),
)


def by_shard(initializer: Any, shape: tuple[int, ...], dtype: Any) -> Callable[..., Any] | None:
    """What TensorFlow asks for the initial value of each shard, or of the whole if it makes no shards.

    Args:
        initializer: what Keras would call.
        shape: of the whole variable.
        dtype: Keras' name of it.

    Returns:
        None if the initializer can only be called for the whole.
    """
    if not _draws_shards(initializer):
        return None

    def initial_value(partition_shape: Any = None, partition_offset: Any = None) -> Any:
        if partition_shape is None:
            return initializer(shape, dtype=dtype)
        part = tuple(int(size) for size in partition_shape)
        return _for_shard(initializer, shape, part, int(partition_offset[0]))(part, dtype=dtype)

    return initial_value


def _draws_shards(initializer: Any) -> bool:
    names = (*_CONSTANT, *_RANDOM, *_SCALED)
    if type(initializer) not in {getattr(keras.initializers, name) for name in names}:
        return False
    return np.ndim(getattr(initializer, "value", 0)) == 0  # Constant takes arrays as well


def _for_shard(initializer: Any, shape: tuple[int, ...], part: tuple[int, ...], first_row: int) -> Any:
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
