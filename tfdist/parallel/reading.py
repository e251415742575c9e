"""Data sets whose batches come on a mesh, each process with the rows of its own devices.

    | a data set of                                    | what a process reads                                          |
    |--------------------------------------------------|---------------------------------------------------------------|
    | global batches, the same in every process        | each; its devices' rows of it are cut out before it is kept   |
    | this process' share, as tfdist.data makes it     | its share; how many rows the others have is asked at each step|

A batch that can't be split evenly goes to every device whole: of global batches every process has it; of shares the
rows are gathered first. It is computed as on one device, only no faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist.data.reading.reader_calls import readers_of
from tfdist.data.rows import shard_policy
from tfdist.data.sharding import ShardOptions
from tfdist.parallel.batches import Batches, refuse_batch
from tfdist.parallel.transfer import to_host

# Read and made ready by tf.data while the one before is computed on.
_PREFETCHED_BATCHES = 2
#: In place of a number of rows: a scalar has none, and who is at the end has none left.
_NONE = -1


class MeshDataset:
    """A dataset of global batches, each on the mesh when it's read.

    Args:
        dataset: of global batches.
        batches: brings them to the mesh.
    """

    def __init__(self, dataset: tf.data.Dataset, batches: Batches) -> None:
        for leaf in tf.nest.flatten(dataset.element_spec):
            refuse_batch(leaf)
        self._dataset, self._batches = dataset, batches

    @property
    def element_spec(self) -> Any:
        """Of a batch that is read."""
        return self._dataset.element_spec

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Any]:
        # The iterator is made now, not with the first batch: each one that is made moves shuffles on.
        batches = iter(self._dataset.prefetch(_PREFETCHED_BATCHES))
        return (self._batches.on_mesh(batch) for batch in batches)


class CutDataset(MeshDataset):
    """Of global batches that every process reads, each cuts out its rows."""

    def __iter__(self) -> Iterator[Any]:
        cut = self._dataset.map(self._cut, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return map(self._placed, iter(cut.prefetch(_PREFETCHED_BATCHES)))

    def _placed(self, cut: Any) -> Any:
        leaves, rows = cut
        placed = [self._on_mesh(leaf, int(count)) for leaf, count in zip(leaves, rows, strict=True)]
        return tf.nest.pack_sequence_as(self.element_spec, placed)

    def _cut(self, *components: Any) -> Any:
        batch = components if isinstance(self.element_spec, tuple) else components[0]
        return tuple(zip(*map(self._own_rows, tf.nest.flatten(batch)), strict=True))

    def _own_rows(self, leaf: Any) -> tuple[Any, tf.Tensor]:
        """This process' rows of a tensor, and how many all have."""
        if not isinstance(leaf, tf.Tensor) or leaf.shape.rank == 0:
            return leaf, tf.constant(_NONE, tf.int64)
        rows = tf.shape(leaf, out_type=tf.int64)[0]
        count, own = self._batches.num_parts, self._batches.own_parts
        is_even = rows % count == 0
        begin = tf.where(is_even, rows * own.start // count, 0)
        return leaf[begin : tf.where(is_even, rows * own.stop // count, rows)], rows

    def _on_mesh(self, leaf: Any, rows: int) -> Any:
        return self._batches.on_mesh(leaf) if rows == _NONE else self._batches.of_own_rows(leaf, rows)


class SharedDataset(MeshDataset):
    """Of batches of which every process reads its share alone.

    Args:
        dataset: of this process' rows of each batch.
        batches: brings them to the mesh.
        share: which of the different shares this process has.

    Raises:
        ValueError: it reads another share.
    """

    def __init__(self, dataset: tf.data.Dataset, batches: Batches, share: ShardOptions) -> None:
        super().__init__(dataset, batches)
        self._share = share
        self._parts = batches.num_parts // share.num_shards

    def __iter__(self) -> Iterator[Any]:
        return self._batches_of(iter(self._dataset.prefetch(_PREFETCHED_BATCHES)))

    def _batches_of(self, read: Iterator[Any]) -> Iterator[Any]:
        while True:
            batch = next(read, None)
            counts = self._counts(_NONE if batch is None else _rows_of(batch))
            if max(counts) == _NONE:
                return
            rows = [max(0, one) for one in counts]
            if batch is None:
                batch = tf.nest.map_structure(_nothing, self.element_spec)
            yield tf.nest.map_structure(lambda leaf, rows=rows: self._on_mesh(leaf, rows), batch)

    def _counts(self, own: int) -> list[int]:
        """How many rows each share has of the batch."""
        # Floats, since some devices can't add up integers.
        parts = tf.constant([own] * self._parts, tf.float32)
        counts = to_host(self._batches.of_own_rows(parts, self._batches.num_parts))
        return [int(count) for count in counts[:: self._parts]]

    def _on_mesh(self, leaf: Any, rows: list[int]) -> Any:
        if not isinstance(leaf, tf.Tensor) or leaf.shape.rank == 0:
            return self._batches.on_mesh(leaf)
        if len(set(rows)) == 1 and rows[0] % self._parts == 0:
            return self._batches.of_own_rows(leaf, sum(rows))
        padded = -(-max(rows) // self._parts) * self._parts
        own = rows[self._share.index]
        with tf.device("CPU:0"):
            leaf = tf.pad(leaf, [[0, padded - own], *[[0, 0]] * (leaf.shape.rank - 1)])
        gathered = to_host(self._batches.of_own_rows(leaf, padded * len(rows)))
        kept = [np.arange(count) + padded * share for share, count in enumerate(rows)]
        return self._batches.on_mesh(gathered[np.concatenate(kept)])


def on_mesh(dataset: tf.data.Dataset, batches: Batches, share: ShardOptions, *, processes: int) -> MeshDataset:
    """A dataset whose batches come on the mesh.

    Args:
        dataset: of global batches, or marked as this process' share (`tf.data`'s auto-shard policy OFF).
        batches: brings them there.
        share: this process' of the rows.
        processes: that share the mesh.

    Raises:
        ValueError: the data set is another share.
    """
    for reader in readers_of(dataset) if processes > 1 else []:
        if reader.options.shard not in (share, ShardOptions()):
            raise ValueError(
                "Processes that hold the same rows of a batch read the same records. Expected: data for "
                f"{share} under this mesh. Received: {reader.options.shard}. Make the data set after the strategy, and "
                "leave `shard` out."
            )
    if processes == 1:
        return MeshDataset(dataset, batches)
    if share.num_shards > 1 and shard_policy(dataset) == tf.data.experimental.AutoShardPolicy.OFF:
        return SharedDataset(dataset, batches, share)
    return CutDataset(dataset, batches)


def _rows_of(batch: Any) -> int:
    leaves = [leaf for leaf in tf.nest.flatten(batch) if isinstance(leaf, tf.Tensor) and leaf.shape.rank]
    return int(leaves[0].shape[0]) if leaves else 0


def _nothing(spec: Any) -> Any:
    return tf.zeros([0, *spec.shape[1:]], spec.dtype) if isinstance(spec, tf.TensorSpec) and spec.shape.rank else spec
