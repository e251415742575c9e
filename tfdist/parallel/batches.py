"""Global batches on a mesh: rows are split over the batch axis, and every device gets its rows only.

A batch whose rows the axis doesn't divide, such as the last of an epoch, is on every device whole: what is computed is
the same, only not faster.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.experimental import dtensor

from tfdist.data.rows import without_optional
from tfdist.layouts.mesh_axes import MeshAxes
from tfdist.parallel.transfer import is_on_mesh, layout_of, replicated, rows_to_mesh, to_mesh

_local = threading.local()


class Batches:
    """Brings batches to a mesh.

    Args:
        mesh: DTensor's.
        axes: its axes.
    """

    def __init__(self, mesh: dtensor.Mesh, axes: MeshAxes) -> None:
        self._mesh, self._axes = mesh, axes

    def on_mesh(self, batch: Any) -> Any:
        """A nesting of the host's tensors or arrays on the mesh; what is there already, or is no tensor, as it is."""
        return tf.nest.map_structure(self._leaf, batch)

    def _leaf(self, leaf: Any) -> Any:
        leaf = without_optional(leaf)
        if leaf is None or is_on_mesh(leaf) or not _is_array(leaf):
            return leaf
        refuse_batch(leaf)
        with tf.device("CPU:0"):
            value = tf.convert_to_tensor(leaf)
        refuse_batch(value)
        return to_mesh(value, self.layout(value.shape))

    def of_own_rows(self, value: tf.Tensor, rows: int) -> tf.Tensor:
        """A tensor of so many rows on the mesh, from those of this process' devices."""
        return rows_to_mesh(value, self.layout(tf.TensorShape([rows, *value.shape[1:]])), rows)

    def layout(self, shape: tf.TensorShape) -> dtensor.Layout:
        """How a tensor of this shape is laid out."""
        if shape.rank == 0 or self.num_parts == 1 or shape[0] % self.num_parts:
            return replicated(self._mesh, shape.rank)
        return self._split_by_rows(shape.rank)

    @property
    def num_parts(self) -> int:
        """Into how many parts rows are split."""
        return self._axes.num_batch_parts

    @property
    def own_parts(self) -> range:
        """Those that this process' devices hold, and all between them."""
        held = [place.get(self._axes.batch_axis, 0) for place in self._mesh.local_device_locations()]
        return range(min(held), max(held) + 1)

    def _split_by_rows(self, rank: int) -> dtensor.Layout:
        return layout_of(self._mesh, (self._axes.batch_axis,) + (None,) * (rank - 1))

    @contextlib.contextmanager
    def computing_on(self, batch: Any) -> Iterator[None]:
        """While a function of this batch is traced, which doesn't know how many rows the batch has."""
        outer = getattr(_local, "split", False)
        _local.split = self.is_split(batch)
        try:
            yield
        finally:
            _local.split = outer

    def is_split(self, batch: Any) -> bool:
        """Whether a batch on the mesh is split by its rows."""
        leaves = [leaf for leaf in tf.nest.flatten(batch) if is_on_mesh(leaf)]
        return any(not dtensor.fetch_layout(leaf).is_fully_replicated() for leaf in leaves)

    def laid_out(self, value: tf.Tensor, *, by_rows: bool) -> tf.Tensor:
        """A tensor in a step, split by its first dimension or not at all.

        Args:
            value: of any layout.
            by_rows: whether to split it, where that can be known to be possible.
        """
        rows = value.shape[0] if value.shape.rank else 1
        can_split = _local_split() if rows is None else not rows % self.num_parts
        layout = replicated(self._mesh, value.shape.rank)
        if by_rows and can_split and value.shape.rank and self.num_parts > 1:
            layout = self._split_by_rows(value.shape.rank)
        return dtensor.relayout(value, layout)


def _local_split() -> bool:
    return getattr(_local, "split", False)


def refuse_batch(leaf: Any) -> None:
    """Raises ValueError for what DTensor has no layout for: ragged and sparse tensors, and strings."""
    kind = next((name for name in ("Ragged", "Sparse") if type(leaf).__name__.startswith(name)), None)
    if kind is None and getattr(leaf, "dtype", None) != tf.string:
        return
    received = "strings" if kind is None else f"a {kind}Tensor"
    remedy = "Make numbers of them" if kind is None else "Make it dense, with a fixed shape,"
    raise ValueError(
        "Batches under HybridParallelStrategy are dense numbers, which devices can split. Expected: dense tensors of "
        f"numbers. Received: {received} ({leaf!r:.80}). {remedy} in the data set, with dataset.map(), before fit."
    )


def _is_array(leaf: Any) -> bool:
    return tf.is_tensor(leaf) or hasattr(leaf, "__array__") or isinstance(leaf, (bool, int, float))
