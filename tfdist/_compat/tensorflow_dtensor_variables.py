"""Variables on a mesh of devices, as Keras' layers and optimizers use them.

Upstream: `DVariable` is assigned only values of its own layout, has no `numpy()`, is read in the layout in which it is
kept, and has no scatters.
Here: whatever is assigned is brought into the variable's layout; layers read it in the layout in which it's used,
optimizers in the one in which it's kept; rows are added as a whole; `numpy()` puts the parts together.
Seen in TensorFlow 2.21. Can go when DVariable does so.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.dtensor.python import d_variable
from tensorflow.experimental import dtensor

_local = threading.local()


@contextlib.contextmanager
def as_kept() -> Iterator[None]:
    """In here variables are read in the layout in which they are kept, as optimizers do it."""
    outer = getattr(_local, "as_kept", False)
    _local.as_kept = True
    try:
        yield
    finally:
        _local.as_kept = outer


class MeshVariable(d_variable.DVariable):
    """A variable on a mesh.

    Args:
        value: a tensor on the mesh, in the layout in which the variable is kept.
        used: the layout in which layers read it.
        slot_of: the parameter for which an optimizer keeps it; None for others.
        to_mesh: brings a tensor of the host to the mesh, in a given layout.
        to_host: puts a tensor of the mesh together, as an array.
    """

    # Declared before upstream's initializer, which may assign the variable.
    used: dtensor.Layout
    #: The whole value, while something is done with it that other processes take no part in.
    held: np.ndarray | None = None

    def __init__(
        self,
        value: tf.Tensor,
        *,
        used: dtensor.Layout,
        slot_of: Any = None,
        to_mesh: Callable[[Any, dtensor.Layout], tf.Tensor],
        to_host: Callable[[tf.Tensor], np.ndarray],
        **options: Any,
    ) -> None:
        self.used, self.slot_of, self._to_mesh, self._to_host = used, slot_of, to_mesh, to_host
        super().__init__(value, **options)

    # Reading.

    def numpy(self) -> np.ndarray:
        """The whole value; with parts in other processes, all must ask for it, in the same order."""
        return self._to_host(super().read_value()) if self.held is None else self.held

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self.numpy()
        return value if dtype is None else value.astype(dtype)

    def __int__(self) -> int:
        return int(self.numpy())

    def __float__(self) -> float:
        return float(self.numpy())

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def value(self) -> tf.Tensor:
        """The value, in the layout of who asks."""
        return self._as_asked(super().value())

    def read_value(self) -> tf.Tensor:
        """As `value`."""
        return self._as_asked(super().read_value())

    def _as_asked(self, value: tf.Tensor) -> tf.Tensor:
        if self.used == self.layout or getattr(_local, "as_kept", False):
            return value
        return dtensor.relayout(value, self.used)

    def gather_nd(self, indices: Any, name: str | None = None) -> tf.Tensor:
        """Slices of the value."""
        return tf.gather_nd(self.value(), indices, name=name)

    # Writing.

    def assign(self, value: Any, use_locking: bool = False, name: str | None = None, read_value: bool = True) -> Any:
        """Upstream's, of any value."""
        return super().assign(self._as_own(value), use_locking, name, read_value)

    def assign_add(self, delta: Any, *args: Any, **kwargs: Any) -> Any:
        """Upstream's, of any value."""
        return super().assign_add(self._as_own(delta), *args, **kwargs)

    def assign_sub(self, delta: Any, *args: Any, **kwargs: Any) -> Any:
        """Upstream's, of any value."""
        return super().assign_sub(self._as_own(delta), *args, **kwargs)

    def scatter_add(self, sparse_delta: Any, use_locking: bool = False, name: str | None = None) -> Any:
        """Rows are added as a whole."""
        return self.assign_add(sparse_delta, name=name)

    def scatter_sub(self, sparse_delta: Any, use_locking: bool = False, name: str | None = None) -> Any:
        """Rows are subtracted as a whole."""
        return self.assign_sub(sparse_delta, name=name)

    def _as_own(self, value: Any) -> tf.Tensor:
        if isinstance(value, tf.IndexedSlices):
            value = dense_of(value, self.shape)
        if not tf.executing_eagerly():
            return dtensor.relayout(tf.convert_to_tensor(value, self.dtype), self.layout)
        if not isinstance(value, tf.Tensor) and hasattr(value, "__tf_tensor__"):
            value = tf.convert_to_tensor(value)
        if not (tf.is_tensor(value) and dtensor.is_dtensor(value)):
            return self._to_mesh(tf.broadcast_to(_on_host(value, self.dtype), self.shape), self.layout)
        return dtensor.relayout(value, self.layout)


def _on_host(value: Any, dtype: tf.DType) -> tf.Tensor:
    with tf.device("CPU:0"):
        return tf.convert_to_tensor(value, dtype)


def dense_of(rows: tf.IndexedSlices, shape: tf.TensorShape) -> tf.Tensor:
    """A tensor of this shape with the sum of the rows at their indices."""
    return tf.math.unsorted_segment_sum(rows.values, rows.indices, shape[0])
