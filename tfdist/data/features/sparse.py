"""Features that are mostly zeros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfdist.data.features.feature import Feature, checked_shape
from tfdist.data.features.storage import list_storage
from tfdist.data.features.values import as_array, check_shape, dtype_name

_INDEX = np.dtype(np.int64)


@dataclass(frozen=True)
class Sparse(Feature):
    """Values at some places of an array; read as a `tf.SparseTensor` [rows, *shape].

    A record's value is a pair (indices, values), a `tf.SparseTensor`, or a dense array, of which the values other than
    0 are written. Indices have shape [values, dimensions], or [values] where the array has one dimension; they are
    written in row-major order, and each only once.

    Args:
        shape: Of one record's array, of at least one dimension.
        dtype: NumPy or TensorFlow dtype, or its name.

    Raises:
        TypeError: If the shape is no sequence of integers, or values of the dtype can't be written.
        ValueError: If the shape has no dimension, or one is less than 1.

    Example:
        >>> features = {"words": tfdist.data.Sparse((50_000,), "float32")}
    """

    shape: Sequence[int]
    dtype: Any = "float32"
    kind: ClassVar[str] = "sparse"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checked_shape(self.shape, smallest=1))
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        list_storage(self.dtype)
        if not self.shape:
            raise ValueError("shape must have a dimension. Received: shape=(). Use tfdist.data.Tensor for scalars.")

    def encode(self, name: str, value: Any) -> dict[str, tf.train.Feature]:
        """See `Feature.encode`."""
        indices, values = self._indices_and_values(name, value)
        order = np.lexsort(indices.T[::-1])
        indices = indices[order]
        self._check_indices(name, indices)
        of_indices = list_storage("int64").to_feature
        encoded = {key: of_indices(indices[:, axis]) for axis, key in enumerate(self._index_keys(name))}
        return {**encoded, f"{name}/values": list_storage(self.dtype).to_feature(values[order])}

    def parsing(self, name: str) -> dict[str, Any]:
        """See `Feature.parsing`."""
        wire = list_storage(self.dtype).wire
        keys = self._index_keys(name)
        return {name: tf.io.SparseFeature(keys, f"{name}/values", wire, list(self.shape), already_sorted=True)}

    def finish(self, name: str, parsed: dict[str, Any]) -> Any:
        """See `Feature.finish`."""
        sparse = parsed[name]
        return tf.SparseTensor(sparse.indices, list_storage(self.dtype).from_wire(sparse.values), sparse.dense_shape)

    def _index_keys(self, name: str) -> list[str]:
        return [f"{name}/indices_{axis}" for axis in range(len(self.shape))]

    def _indices_and_values(self, name: str, value: Any) -> tuple[np.ndarray, np.ndarray]:
        dtype = list_storage(self.dtype).dtype
        if hasattr(value, "indices") and hasattr(value, "values"):
            value = (value.indices, value.values)
        if not isinstance(value, tuple):
            dense = as_array(name, value, dtype)
            check_shape(name, dense, tuple(self.shape))
            places = np.nonzero(dense)
            return np.stack(places, axis=1), dense[places]
        if len(value) != 2:
            raise ValueError(
                f"Feature {name!r} must be a pair (indices, values) or a dense array. Received: a tuple of "
                f"{len(value)}. Give both."
            )
        indices, values = as_array(name, value[0], _INDEX), as_array(name, value[1], dtype)
        indices = indices.reshape(-1, len(self.shape)) if indices.ndim == 1 else indices
        if indices.shape != (values.size, len(self.shape)) or values.ndim != 1:
            raise ValueError(
                f"Feature {name!r} must have indices of shape (values, {len(self.shape)}) and values of shape "
                f"(values,). Received: indices of shape {indices.shape}, values of shape {values.shape}. Reshape them."
            )
        return indices, values

    def _check_indices(self, name: str, indices: np.ndarray) -> None:
        if not len(indices):
            return
        if indices.min() < 0 or (indices >= np.asarray(self.shape)).any():
            raise ValueError(
                f"Feature {name!r} must have indices inside of its shape, {tuple(self.shape)}. "
                f"Received: indices from {indices.min(0).tolist()} to {indices.max(0).tolist()}. Correct them."
            )
        repeated = (indices[1:] == indices[:-1]).all(axis=1)
        if repeated.any():
            which = indices[1:][repeated][0].tolist()
            raise ValueError(
                f"Feature {name!r} must have each index once. Received: index {which} twice. Add its values up."
            )
