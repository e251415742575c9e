"""Buckets: several tensors, or a part of a large one, that are sent together as one flat tensor.

A backward pass makes the gradients of the last layers first, so buckets are filled from the last value to the first and
sent in the order in which they are full:

    values      w1 [2.5 buckets]   b1   w2 [0.5 buckets]   b2   w3
    sent        w2        w1, a third   w1, a third   w1, a third        w3 b2 b1

What is larger than a bucket is cut into equal parts, where that helps. What has at least a quarter of its size goes
alone, since joining means copying; the rest is joined. Which part is in which bucket depends on shapes only, so it is
the same on all replicas.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

#: A value that fills this share of a bucket isn't joined with others.
_ALONE = 0.25


class Part(NamedTuple):
    """Elements `begin` to `end` of a value, flattened; `place` says which value."""

    place: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Elements."""
        return self.end - self.begin


def plan_buckets(sizes: Sequence[int], limit: int, *, cuts: bool = True) -> Iterator[list[Part]]:
    """What goes into each bucket, in the order in which the buckets are sent.

    Args:
        sizes: elements of each value.
        limit: elements of a bucket at most.
        cuts: whether larger values are cut, or are a bucket of their own.
    """
    joined: list[Part] = []
    for place in reversed(range(len(sizes))):
        for part in _parts(place, sizes[place], limit if cuts else sizes[place]):
            if part.size >= _ALONE * limit:
                yield [part]
                continue
            if part.size + sum(one.size for one in joined) > limit:
                yield joined
                joined = []
            joined.append(part)
    if joined:
        yield joined


def _parts(place: int, size: int, limit: int) -> list[Part]:
    count = max(1, -(-size // max(1, limit)))
    bounds = [size * index // count for index in range(count + 1)]
    return [Part(place, begin, end) for begin, end in itertools.pairwise(bounds)]


def in_buckets(
    values: Sequence[tf.Tensor], send: Callable[[tf.Tensor], tf.Tensor], *, bucket_bytes: int, cuts: bool = True
) -> list[tf.Tensor]:
    """What `send` makes of values, bucket by bucket.

    Args:
        values: dense, of one dtype, with static shapes.
        send: gives a flat tensor for a flat tensor, each of its elements from the one in its place.
        bucket_bytes: of a bucket at most, an element at least.
        cuts: whether larger values are cut, or are a bucket of their own.

    Returns:
        The values' shapes, in their order.
    """
    if not values:
        return []
    limit = max(1, bucket_bytes // values[0].dtype.size)
    flat = [tf.reshape(value, [-1]) for value in values]
    found: list[dict[int, tf.Tensor]] = [{} for _ in values]
    for bucket in plan_buckets([one.shape.num_elements() for one in flat], limit, cuts=cuts):
        sent = send(_concatenated([_cut(flat[part.place], part) for part in bucket]))
        for part, piece in zip(bucket, _split(sent, bucket), strict=True):
            found[part.place][part.begin] = piece
    return [
        tf.reshape(_concatenated([pieces[begin] for begin in sorted(pieces)]), value.shape)
        for pieces, value in zip(found, values, strict=True)
    ]


# Where there is nothing to cut or to join, nothing is copied.


def _cut(flat: tf.Tensor, part: Part) -> tf.Tensor:
    return flat if part.size == flat.shape.num_elements() else flat[part.begin : part.end]


def _concatenated(pieces: list[tf.Tensor]) -> tf.Tensor:
    return pieces[0] if len(pieces) == 1 else tf.concat(pieces, 0)


def _split(flat: tf.Tensor, bucket: list[Part]) -> list[tf.Tensor]:
    return [flat] if len(bucket) == 1 else tf.split(flat, [part.size for part in bucket])
