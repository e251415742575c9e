"""Features whose values differ in length from record to record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfdist.data.features.feature import Feature, checked_shape
from tfdist.data.features.storage import list_storage
from tfdist.data.features.values import as_array, dtype_name

# What padding=0 means where a number would be of the wrong type.
_ZEROS: dict[str, Any] = {"string": "", "bool": False}


@dataclass(frozen=True)
class VariableLength(Feature):
    """Any number of values, read as a dense tensor [rows, length], padded at the end.

    Args:
        dtype: NumPy or TensorFlow dtype, or its name.
        padding: What stands behind the last value of a shorter row; 0 is the empty string for strings.
        length: Of all rows, in values; by default that of the longest row that was parsed together. More values are an
            error.

    Raises:
        TypeError: If values of the dtype can't be written, or the padding is of another type.
        ValueError: If length is less than 1.

    Example:
        >>> features = {"tokens": tfdist.data.VariableLength("int64", padding=-1)}
    """

    dtype: Any = "int64"
    padding: Any = 0
    length: int | None = None
    kind: ClassVar[str] = "variable_length"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        storage = list_storage(self.dtype)
        if type(self.padding) is int and self.padding == 0 and self.dtype in _ZEROS:
            object.__setattr__(self, "padding", _ZEROS[self.dtype])
        if as_array("padding", self.padding, storage.dtype).shape:
            raise ValueError(f"padding must be one value. Received: padding={self.padding!r}. Give a scalar.")
        _check_length(self.length)

    def encode(self, name: str, value: Any) -> dict[str, tf.train.Feature]:
        """See `Feature.encode`."""
        storage = list_storage(self.dtype)
        array = _rows_of(name, value, storage.dtype, ())
        if self.length is not None and len(array) > self.length:
            raise ValueError(
                f"Feature {name!r} must have at most {self.length} values. Received: {name} with {len(array)}. "
                "Shorten the value, or declare the feature with a larger length."
            )
        return {name: storage.to_feature(array)}

    def parsing(self, name: str) -> dict[str, Any]:
        """See `Feature.parsing`."""
        # Sparse, not ragged: some rows of it still know the longest row of the whole batch.
        return {name: tf.io.VarLenFeature(list_storage(self.dtype).wire)}

    @property
    def max_values(self) -> int | None:
        """See `Feature.max_values`."""
        return self.length

    def finish(self, name: str, parsed: dict[str, Any]) -> Any:
        """See `Feature.finish`."""
        storage, sparse = list_storage(self.dtype), parsed[name]
        shape = sparse.dense_shape
        if self.length is not None:
            shape = tf.stack([shape[0], tf.constant(self.length, tf.int64)])
        padding = tf.constant(as_array("padding", self.padding, storage.dtype).tolist(), tf.as_dtype(self.dtype))
        dense = tf.fill(shape, padding)
        dense = tf.tensor_scatter_nd_update(dense, sparse.indices, storage.from_wire(sparse.values))
        return tf.ensure_shape(dense, [None, self.length])

    def to_json(self) -> dict[str, Any]:
        """See `Feature.to_json`."""
        padding = self.padding.decode() if isinstance(self.padding, bytes) else self.padding
        padding = padding.item() if isinstance(padding, np.generic) else padding
        return {**super().to_json(), "padding": padding}


@dataclass(frozen=True)
class Ragged(Feature):
    """Any number of values, or of arrays of one shape; read as a `tf.RaggedTensor` [rows, (length), *inner_shape].

    Args:
        dtype: NumPy or TensorFlow dtype, or its name.
        inner_shape: Of one of the arrays; () for values.

    Raises:
        TypeError: If values of the dtype can't be written, or the shape is no sequence of integers.
        ValueError: If a dimension is less than 1.

    Example:
        >>> features = {"boxes": tfdist.data.Ragged("float32", inner_shape=(4,))}
    """

    dtype: Any = "int64"
    inner_shape: Sequence[int] = ()
    kind: ClassVar[str] = "ragged"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        object.__setattr__(self, "inner_shape", checked_shape(self.inner_shape, name="inner_shape", smallest=1))
        list_storage(self.dtype)

    def encode(self, name: str, value: Any) -> dict[str, tf.train.Feature]:
        """See `Feature.encode`."""
        storage = list_storage(self.dtype)
        return {name: storage.to_feature(_rows_of(name, value, storage.dtype, tuple(self.inner_shape)))}

    def parsing(self, name: str) -> dict[str, Any]:
        """See `Feature.parsing`."""
        # 64 bits: a batch may have more than 2**31 values, and splits of other sizes don't go together.
        return {name: tf.io.RaggedFeature(list_storage(self.dtype).wire, row_splits_dtype=tf.int64)}

    def finish(self, name: str, parsed: dict[str, Any]) -> Any:
        """See `Feature.finish`."""
        flat = parsed[name]
        values = list_storage(self.dtype).from_wire(flat.values)
        if not self.inner_shape:
            return flat.with_values(values)
        values = tf.reshape(values, [-1, *self.inner_shape])
        return tf.RaggedTensor.from_row_splits(values, flat.row_splits // int(np.prod(self.inner_shape)))


def _rows_of(name: str, value: Any, dtype: np.dtype, inner: tuple[int, ...]) -> np.ndarray:
    """The value as an array [any length, *inner]."""
    array = as_array(name, value, dtype)
    if array.shape == (0,):  # an empty list has no inner shape
        return array.reshape((0, *inner))
    if array.ndim != 1 + len(inner) or array.shape[1:] != inner:
        wanted = ", ".join(["any length", *map(str, inner)])
        raise ValueError(
            f"Feature {name!r} must have shape ({wanted}). Received: {name} of shape {array.shape}. "
            "Reshape the value, or declare the feature with its shape."
        )
    return array


def _check_length(length: Any) -> None:
    if length is None:
        return
    if isinstance(length, bool) or not isinstance(length, int):
        raise TypeError(f"length must be an integer or None. Received: length={length!r}. Give a number of values.")
    if length < 1:
        raise ValueError(f"length must be at least 1. Received: length={length}. Give a number of values.")
