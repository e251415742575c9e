"""Where one variable's gradients are added up; every replica has its own, and nothing is sent until they are read.

The variables are ON_READ: assigning and reading in a replica touch that replica's copy alone.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfdist._compat.tensorflow_dtensor_variables import MeshVariable

_LOCAL = {
    "trainable": False,
    "synchronization": tf.VariableSynchronization.ON_READ,
    "aggregation": tf.VariableAggregation.SUM,
}


class Slot(Protocol):
    """The sum of one variable's weighted gradients."""

    #: "dense" or "sparse"; says in files which class it is.
    kind: str
    dtype: tf.DType

    @property
    def variables(self) -> list[tf.Variable]:
        """What it consists of, in an order that stays."""

    def add(self, gradient: Any) -> None:
        """Add a weighted gradient of the slot's dtype, in a replica."""

    def read(self) -> Any:
        """The replica's sum, a tensor or IndexedSlices."""

    def clear(self) -> None:
        """Set the replica's sum to zero."""

    def restore(self, arrays: list[np.ndarray], strategy: Any, *, here: bool) -> None:
        """Put a sum over all replicas into this process' first replica if it is `here`, and nothing elsewhere; eagerly.

        Args:
            arrays: none, or what `read` consisted of.
        """


def local_variable(initial: Any, name: str, **options: Any) -> tf.Variable:
    """A variable of which each replica has a copy of its own; to be called in the strategy's scope."""
    return tf.Variable(initial, name=name, **_LOCAL, **options)


def assign_first(variable: tf.Variable, value: tf.Tensor, strategy: Any, *, here: bool) -> None:
    """Assign the first local replica's copy, if it is `here`, and zeros to all others; eagerly."""
    for index, copy in enumerate(strategy.experimental_local_results(variable)):
        copy.assign(value if here and index == 0 else tf.zeros_like(value))


class DenseSlot:
    """A sum in the shape of the variable."""

    kind = "dense"

    def __init__(self, shape: tf.TensorShape, dtype: tf.DType) -> None:
        self.dtype = dtype
        # On a mesh the function isn't called, and each device has zeros of its own part.
        self._sum = local_variable(lambda: tf.zeros(shape, dtype), "gradient_accumulator", dtype=dtype, shape=shape)

    @property
    def variables(self) -> list[tf.Variable]:
        """The sum."""
        return [self._sum]

    def add(self, gradient: Any) -> None:
        """Add a weighted gradient; IndexedSlices, which came dense before, are made dense."""
        if isinstance(gradient, tf.IndexedSlices):
            rows = tf.shape(self._sum)[0]
            gradient = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, rows)
        self._sum.assign_add(gradient)

    def read(self) -> tf.Tensor:
        """The replica's sum."""
        return self._sum.read_value()

    def clear(self) -> None:
        """Set the replica's sum to zero."""
        if isinstance(self._sum, MeshVariable):
            # DTensor forgets in a conditional that ZerosLike has a layout.
            self._sum.assign(tf.zeros(self._sum.shape, self.dtype))
        else:
            self._sum.assign(tf.raw_ops.ZerosLike(x=self._sum.read_value()))  # computed where the sum is

    def restore(self, arrays: list[np.ndarray], strategy: Any, *, here: bool) -> None:
        """From the sum's array."""
        total = tf.cast(arrays[0], self.dtype) if arrays else tf.zeros(self._sum.shape, self.dtype)
        assign_first(self._sum, total, strategy, here=here)


class SparseSlot:
    """The rows of all IndexedSlices that came, one after another.

    Rows with the same index are not merged: Keras' optimizers take a batch's rows as they come (Adam squares each by
    itself), and one device that sees the whole global batch has them unmerged too.
    """

    kind = "sparse"

    def __init__(self, shape: tf.TensorShape, dtype: tf.DType) -> None:
        self.dtype, self._shape = dtype, shape
        rows = tf.TensorShape([None]).concatenate(shape[1:])
        self._values = local_variable(tf.zeros([0, *shape[1:]], dtype), "gradient_rows", shape=rows)
        self._indices = local_variable(tf.zeros([0], tf.int64), "gradient_row_indices", shape=[None])

    @property
    def variables(self) -> list[tf.Variable]:
        """Rows and their indices."""
        return [self._values, self._indices]

    def add(self, gradient: Any) -> None:
        """Keep the rows of weighted IndexedSlices.

        Raises:
            ValueError: the gradient is dense, which it was not in the first micro-batch.
        """
        if not isinstance(gradient, tf.IndexedSlices):
            raise ValueError(
                "Expected: a sparse gradient (IndexedSlices), as in the first micro-batch. Received: a dense one, of "
                f"shape={gradient.shape}. Compile the model anew when the way it uses its variables changes."
            )
        self._values.assign(tf.concat([self._values.read_value(), gradient.values], 0))
        self._indices.assign(tf.concat([self._indices.read_value(), tf.cast(gradient.indices, tf.int64)], 0))

    def read(self) -> tf.IndexedSlices:
        """The replica's rows."""
        shape = tf.constant(self._shape.as_list(), tf.int64)
        return tf.IndexedSlices(self._values.read_value(), self._indices.read_value(), shape)

    def clear(self) -> None:
        """Forget the replica's rows."""
        self._values.assign(tf.zeros([0, *self._shape[1:]], self.dtype))
        self._indices.assign(tf.zeros([0], tf.int64))

    def restore(self, arrays: list[np.ndarray], strategy: Any, *, here: bool) -> None:
        """From the arrays of rows and of their indices."""
        empty = [np.zeros([0, *self._shape[1:]]), np.zeros([0])]
        for variable, none, array in zip((self._values, self._indices), empty, arrays or empty, strict=True):
            for index, copy in enumerate(strategy.experimental_local_results(variable)):
                copy.assign(tf.cast(array if here and index == 0 else none, copy.dtype))


SLOTS: dict[str, type[DenseSlot] | type[SparseSlot]] = {"dense": DenseSlot, "sparse": SparseSlot}


def kind_of(gradient: Any) -> str:
    """Which slot a gradient needs."""
    return "sparse" if isinstance(gradient, tf.IndexedSlices) else "dense"


def slot_dtype(variable_dtype: Any, wanted: str | None) -> tf.DType:
    """The accumulator's dtype; float16, whose range ends at 65,504, could not hold sums over rows."""
    dtype = tf.as_dtype(wanted or variable_dtype)
    return tf.float32 if dtype == tf.float16 else dtype
