"""Buckets: several tensors, or parts of a large one, that are sent together as one flat tensor.

A backward pass makes the gradients of the last layers first, so buckets are filled from the last value to the first:

    values     w1 [2.5 buckets]      b1    w2          b2
    buckets    4: w1   3: w1   2: w1 b1    1: w2 b2         in the order in which they are ready

Large values are cut into equal parts that fit, small ones are joined. Which part is in which bucket depends on shapes
only, so it is the same on all replicas.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf


class Part(NamedTuple):
    """Elements `begin` to `end` of a value, flattened; `place` says which value."""

    place: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Elements."""
        return self.end - self.begin


def plan_buckets(sizes: Sequence[int], limit: int) -> list[list[Part]]:
    """What goes into each bucket, in the order in which the buckets are sent.

    Args:
        sizes: elements of each value.
        limit: elements of a bucket at most.
    """
    buckets: list[list[Part]] = []
    room = 0
    for place in reversed(range(len(sizes))):
        for part in _parts(place, sizes[place], limit):
            if not buckets or part.size > room:
                buckets.append([])
                room = limit
            buckets[-1].append(part)
            room -= part.size
    return buckets


def _parts(place: int, size: int, limit: int) -> list[Part]:
    count = max(1, -(-size // limit))
    bounds = [size * index // count for index in range(count + 1)]
    return [Part(place, begin, end) for begin, end in itertools.pairwise(bounds)]


def in_buckets(
    values: Sequence[tf.Tensor], send: Callable[[tf.Tensor], tf.Tensor], *, bucket_bytes: int
) -> list[tf.Tensor]:
    """What `send` makes of values, bucket by bucket.

    Args:
        values: dense, of one dtype, with static shapes.
        send: gives a flat tensor for a flat tensor, each of its elements from the one in its place.
        bucket_bytes: of a bucket at most, an element at least.

    Returns:
        The values' shapes, in their order.
    """
    if not values:
        return []
    limit = max(1, bucket_bytes // values[0].dtype.size)
    flat = [tf.reshape(value, [-1]) for value in values]
    found: list[dict[int, tf.Tensor]] = [{} for _ in values]
    for bucket in plan_buckets([one.shape.num_elements() for one in flat], limit):
        parts = [flat[part.place][part.begin : part.end] for part in bucket]
        sent = send(tf.concat(parts, 0) if len(parts) > 1 else parts[0])
        for part, piece in zip(bucket, tf.split(sent, [part.size for part in bucket]), strict=True):
            found[part.place][part.begin] = piece
    return [_joined(pieces, value) for pieces, value in zip(found, values, strict=True)]


def _joined(pieces: dict[int, tf.Tensor], like: tf.Tensor) -> tf.Tensor:
    ordered = [pieces[begin] for begin in sorted(pieces)]
    return tf.reshape(tf.concat(ordered, 0) if len(ordered) > 1 else ordered[0], like.shape)
