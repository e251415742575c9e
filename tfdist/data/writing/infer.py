"""Features of values for which none were declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist.data.features import Feature, Ragged, Sparse, String, Tensor

_REMEDY = "Declare it in features."


def feature_of_value(name: str, value: Any) -> Feature:
    """Returns the feature of one record's value: NumPy's dtypes and shapes as they are, Python's int as int64, float
    as float32.

    Raises:
        TypeError: If there is none for such a value.
    """
    if isinstance(value, str | bytes):
        return String()
    if isinstance(value, bool | np.bool_):
        return Tensor((), "bool")
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return _of_dtype(name, tuple(value.shape), value.dtype)
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty((), object)
    if array.dtype == object:
        raise TypeError(
            f"Values must be numbers, strings or arrays of these. Received: {name}={value!r}, {type(value).__name__}. "
            f"{_REMEDY}"
        )
    dtype = {"f": "float32", "i": "int64"}.get(array.dtype.kind, array.dtype)
    return _of_dtype(name, array.shape, dtype)


def features_of_record(record: Any) -> dict[str, Feature]:
    """Returns the features of one record.

    Raises:
        TypeError: If it is no mapping, or has a value for which there is no feature.
    """
    return {name: feature_of_value(name, value) for name, value in check_record(record).items()}


def features_of_columns(columns: Mapping[str, np.ndarray]) -> dict[str, Feature]:
    """Returns the features of arrays with the records in dimension 0."""
    return {name: _of_column(name, column) for name, column in columns.items()}


def features_of_spec(specs: Mapping[str, Any]) -> dict[str, Feature]:
    """Returns the features of an unbatched `tf.data.Dataset`.

    Raises:
        TypeError: If shapes are unknown.
    """
    return {name: _of_spec(name, spec) for name, spec in specs.items()}


def check_record(record: Any) -> Mapping[str, Any]:
    """Refuses a record that is no mapping.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(record, Mapping):
        raise TypeError(
            f"Records must be mappings of names to values. Received: {type(record).__name__} {str(record)[:60]!r}. "
            'Yield for example {"image": image, "label": label}.'
        )
    return record


def _of_dtype(name: str, shape: tuple[int, ...], dtype: Any) -> Feature:
    if getattr(dtype, "kind", "") in ("U", "S", "O"):
        dtype = "string"
    try:
        return Tensor(shape, dtype) if shape or dtype != "string" else String()
    except TypeError as error:
        raise TypeError(f"No feature holds {name} of dtype {dtype}. {_REMEDY} ({error})") from error


def _of_column(name: str, column: np.ndarray) -> Feature:
    first = column[0] if column.dtype == object and len(column) else None
    if isinstance(first, list | tuple | np.ndarray):
        # One dtype for all rows: an empty list has none of its own.
        filled = next((np.asarray(row) for row in column if len(row)), np.zeros(0, np.int64))
        inner = feature_of_value(name, filled if isinstance(first, np.ndarray) else filled.tolist())
        return Ragged(getattr(inner, "dtype", "string"), filled.shape[1:])
    if first is not None and not isinstance(first, str | bytes):
        return feature_of_value(name, first)
    return _of_dtype(name, column.shape[1:], column.dtype)


def _of_spec(name: str, spec: Any) -> Feature:
    rank = spec.shape.rank
    shape: Sequence[int | None] = (None, None) if rank is None else spec.shape.as_list()
    if isinstance(spec, tf.SparseTensorSpec) and None not in shape:
        return Sparse(tuple(shape), spec.dtype)  # type: ignore[arg-type]
    if isinstance(spec, tf.TensorSpec | tf.RaggedTensorSpec) and None not in shape[1:]:
        if shape and shape[0] is None:
            return Ragged(spec.dtype, tuple(shape[1:]))  # type: ignore[arg-type]
        if isinstance(spec, tf.TensorSpec):
            return _of_dtype(name, tuple(shape), spec.dtype.name)  # type: ignore[arg-type]
    raise TypeError(
        f"Shapes must be known but for the first dimension. Received: {name} of {spec}. Declare it in features, or set "
        "its shape with tf.ensure_shape."
    )
