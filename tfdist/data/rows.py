"""Rows of a global batch, cut into one slice a replica.

Replica s of N gets rows [n*s//N, n*(s+1)//N) of a global batch of n: contiguous, in order, sizes at most one apart,
none twice and none left out, for any n.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from absl import logging


def slice_rows(batch: Any, index: Any, count: int) -> Any:
    """The rows of `batch` that belong to slice `index` of `count`.

    Args:
        batch: nesting of tensors (dense, ragged, sparse; strings too) with the rows in dimension 0. Scalars and
            optionals, which have no rows, are returned as they are.
        index: which slice, 0 <= index < count; a Python integer or an int64 scalar.
        count: how many slices.
    """
    return tf.nest.map_structure(lambda leaf: _slice_leaf(leaf, index, count), batch)


def take_rows(batch: Any, begin: Any, end: Any) -> Any:
    """Rows begin to end of `batch`.

    Args:
        batch: as in `slice_rows`.
        begin, end: int64 scalars.
    """
    return tf.nest.map_structure(lambda leaf: _rows_of_leaf(leaf, begin, end), batch)


def as_tensor(leaf: Any) -> Any:
    """A tensor of a leaf of a batch; what is ragged, sparse or missing as it is."""
    return leaf if leaf is None or isinstance(leaf, (tf.RaggedTensor, tf.SparseTensor)) else tf.convert_to_tensor(leaf)


def without_optional(leaf: Any) -> Any:
    """None in place of an optional that Keras puts where there is no label or weight."""
    return None if isinstance(leaf, (tf.OptionalSpec, tf.experimental.Optional)) else leaf


def join_parts(parts: Sequence[Any]) -> Any:
    """The rows of replicas' parts, one after another; a row each of what has no rows."""
    return tf.stack(parts) if parts[0].shape.rank == 0 else tf.concat(parts, 0)


def _slice_leaf(leaf: Any, index: Any, count: int) -> Any:
    if not _has_rows(leaf):
        return leaf
    part = _rows_of_leaf(leaf, *_bounds(_num_rows(leaf), index, count))
    if isinstance(part, tf.Tensor) and leaf.shape[0] is not None and leaf.shape[0] % count == 0:
        part = tf.ensure_shape(part, [leaf.shape[0] // count, *leaf.shape[1:]])
    return part


def _has_rows(leaf: Any) -> bool:
    if leaf is None or isinstance(leaf, tf.experimental.Optional):
        return False
    return isinstance(leaf, (tf.SparseTensor, tf.RaggedTensor)) or tf.convert_to_tensor(leaf).shape.rank != 0


def _num_rows(leaf: Any) -> tf.Tensor:
    if isinstance(leaf, tf.SparseTensor):
        return leaf.dense_shape[0]
    return leaf.nrows() if isinstance(leaf, tf.RaggedTensor) else tf.shape(leaf, out_type=tf.int64)[0]


def _rows_of_leaf(leaf: Any, begin: Any, end: Any) -> Any:
    if not _has_rows(leaf):
        return leaf
    if isinstance(leaf, tf.SparseTensor):
        start = tf.concat([[begin], tf.zeros_like(leaf.dense_shape[1:])], 0)
        return tf.sparse.slice(leaf, start, tf.concat([[end - begin], leaf.dense_shape[1:]], 0))
    return leaf[begin:end]


def _bounds(rows: tf.Tensor, index: Any, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    rows, index = tf.cast(rows, tf.int64), tf.cast(index, tf.int64)
    return rows * index // count, rows * (index + 1) // count


def replica_slices(dataset: tf.data.Dataset, *, first: int, local: int, count: int) -> tf.data.Dataset:
    """Cut each global batch into this worker's slices, one element a local replica, in replica order.

    Args:
        dataset: global batches, the same on every worker.
        first: index of this worker's first replica.
        local: number of replicas on this worker.
        count: number of replicas of the whole job.
    """

    def cut(index: Any, *components: Any) -> Any:
        return slice_rows(element_of(dataset, components), index, count)

    if local == 1:
        sliced = dataset.map(
            lambda *components: cut(first, *components),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    else:
        sliced = dataset.flat_map(
            lambda *components: tf.data.Dataset.range(first, first + local).map(lambda index: cut(index, *components))
        )
    return mark_share(sliced).prefetch(tf.data.AUTOTUNE)


def element_of(dataset: tf.data.Dataset, components: tuple[Any, ...]) -> Any:
    """What `Dataset.map` unpacked, packed again; without Nones at its end, which distributed iterators can't hold."""
    if not isinstance(dataset.element_spec, tuple):
        return components[0]
    while components and components[-1] is None:
        components = components[:-1]
    return components


def mark_share(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Say that a dataset holds this worker's share already: AutoShardPolicy.OFF, which later transformations keep."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    with _without_warnings():  # that the policy changes, for arrays, which Keras marks DATA
        marked = dataset.with_options(options)
        marked.options()
    return marked


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def shard_policy(dataset: tf.data.Dataset) -> tf.data.experimental.AutoShardPolicy:
    """The dataset's auto-shard policy."""
    return dataset.options().experimental_distribute.auto_shard_policy
