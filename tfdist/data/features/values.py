"""Values of one record, as arrays of the dtype that a feature has; what would lose something is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

OBJECT = np.dtype(object)  # of an array of bytes


def dtype_name(dtype: Any) -> str:
    """Returns the name of a dtype given as a string, a NumPy or TensorFlow dtype, or a type.

    Raises:
        TypeError: If there is no such dtype.
    """
    if dtype is str or dtype is bytes:
        return "string"
    try:
        return str(tf.as_dtype(dtype).name)
    except TypeError as error:
        raise TypeError(
            f"dtype must be a NumPy or TensorFlow dtype. Received: dtype={dtype!r}. Write for example 'float32'."
        ) from error


def as_array(name: str, value: Any, dtype: np.dtype) -> np.ndarray:
    """Returns a value as an array of `dtype`; of objects, which are bytes, for strings.

    Integers become integers of another width if they fit. Numbers of Python, which have no width, are rounded to
    floats. Otherwise nothing may be lost.

    Raises:
        TypeError: If the value has another dtype, or is no array at all.
    """
    if type(value) is np.ndarray and value.dtype == dtype and dtype is not OBJECT:
        return value
    if dtype is OBJECT:
        return _as_bytes(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise _wrong_type(name, dtype, value) from error
    if array.dtype == dtype:
        return array
    has_no_width = not hasattr(value, "dtype")
    if not (array.size == 0 and has_no_width) and not _fits(array, dtype, has_no_width):
        raise _wrong_type(name, dtype, value)
    return array.astype(dtype)


def check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuses an array of another shape.

    Raises:
        ValueError: If the shape is another.
    """
    if array.shape != shape:
        raise ValueError(
            f"Feature {name!r} must have shape {shape}. Received: {name} of shape {array.shape}. Reshape the value, or "
            "declare the feature with its shape; for lengths that differ use tfdist.data.VariableLength or Ragged."
        )


def _fits(array: np.ndarray, dtype: np.dtype, has_no_width: bool) -> bool:
    if array.dtype.kind not in "biufcV":  # V: bfloat16 and the like
        return False
    if np.can_cast(array.dtype, dtype, "safe"):
        return True
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return bool(bounds.min <= int(array.min(initial=0)) and int(array.max(initial=0)) <= bounds.max)
    to_float = tf.as_dtype(dtype).is_floating or tf.as_dtype(dtype).is_complex
    if not (has_no_width and to_float and array.dtype.kind in "iuf"):
        return False
    with np.errstate(over="ignore"):
        return bool(np.array_equal(np.isfinite(array), np.isfinite(array.astype(dtype))))


def _as_bytes(name: str, value: Any) -> np.ndarray:
    if isinstance(value, str | bytes):
        flat, shape = [value], ()
    else:
        # Never through an array of dtype S, which drops zeros at the end of its bytes.
        array = value if isinstance(value, np.ndarray) else _array_of_objects(value)
        flat, shape = array.ravel().tolist(), array.shape
    result = np.empty(len(flat), object)
    for i, each in enumerate(flat):
        if isinstance(each, str):
            result[i] = each.encode()
        elif isinstance(each, bytes):
            result[i] = bytes(each)
        else:
            raise _wrong_type(name, OBJECT, each)
    return result.reshape(shape)


def _array_of_objects(value: Any) -> np.ndarray:
    return np.asarray(value) if hasattr(value, "__array__") else np.array(value, dtype=object)


def _wrong_type(name: str, dtype: np.dtype, value: Any) -> TypeError:
    expected = "str or bytes" if dtype is OBJECT else str(dtype)
    given = getattr(value, "dtype", None)
    what = type(value).__name__ if given is None else f"{type(value).__name__} of dtype {given}"
    shown = repr(value)
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    return TypeError(
        f"Feature {name!r} must be {expected}. Received: {name}={shown}, {what}, which is not or would not fit. "
        "Convert the value, or declare the feature with its dtype."
    )
