"""How the values of each dtype lie in a `tf.train.Example`, which knows float32, int64 and bytes only."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist.data.features.values import OBJECT

# Bound once: attributes of `tf` are looked up slowly, and these are needed for each value of each record.
_Feature = tf.train.Feature
_BytesList = tf.train.BytesList
_FloatList = tf.train.FloatList
_Int64List = tf.train.Int64List
_LARGE = float(np.finfo(np.float32).max)
_LARGE_INTEGER = 1 << 63


@dataclass(frozen=True)
class Storage(abc.ABC):
    """Writes arrays of one dtype, and reads them again.

    Args:
        dtype: Of the arrays.
        wire: What `tf.io.parse_example` finds.
    """

    dtype: np.dtype
    wire: tf.DType

    @abc.abstractmethod
    def to_feature(self, array: np.ndarray) -> tf.train.Feature:
        """Returns the values of an array of `dtype`, whatever its shape."""

    def scalar(self, value: Any) -> tf.train.Feature | None:
        """Returns the value of a Python scalar, or None if that takes checks; five times as fast as an array."""
        return None

    @abc.abstractmethod
    def from_wire(self, tensor: Any) -> Any:
        """Returns, as `dtype`, a tensor that was parsed as `wire`."""


@dataclass(frozen=True)
class Floats(Storage):
    """float32, and floats that are a part of them."""

    dtype: np.dtype
    wire: tf.DType = tf.float32

    def to_feature(self, array: np.ndarray) -> tf.train.Feature:
        """See `Storage.to_feature`."""
        data = array.astype(np.float32, copy=False).tobytes()
        # The message's own bytes: 50 times as fast as giving it numbers one by one. Field 1, packed.
        return _Feature(float_list=_FloatList.FromString(b"\x0a" + _varint(len(data)) + data))

    def scalar(self, value: Any) -> tf.train.Feature | None:
        """See `Storage.scalar`."""
        if type(value) is float and self.dtype == np.float32 and abs(value) < _LARGE:
            return _Feature(float_list=_FloatList(value=[value]))
        return None

    def from_wire(self, tensor: Any) -> Any:
        """See `Storage.from_wire`."""
        return tf.cast(tensor, tf.as_dtype(self.dtype))


@dataclass(frozen=True)
class Integers(Storage):
    """int64, integers that are a part of them, and booleans."""

    dtype: np.dtype
    wire: tf.DType = tf.int64

    def scalar(self, value: Any) -> tf.train.Feature | None:
        """See `Storage.scalar`."""
        if type(value) is int and self.dtype == np.int64 and -_LARGE_INTEGER < value < _LARGE_INTEGER:
            return _Feature(int64_list=_Int64List(value=[value]))
        return None

    def to_feature(self, array: np.ndarray) -> tf.train.Feature:
        """See `Storage.to_feature`."""
        return _Feature(int64_list=_Int64List(value=array.astype(np.int64, copy=False).ravel().tolist()))

    def from_wire(self, tensor: Any) -> Any:
        """See `Storage.from_wire`."""
        return tf.cast(tensor, tf.as_dtype(self.dtype))


@dataclass(frozen=True)
class Bits(Storage):
    """Any other type of 64 bits, in integers of the same bits."""

    dtype: np.dtype
    wire: tf.DType = tf.int64

    def to_feature(self, array: np.ndarray) -> tf.train.Feature:
        """See `Storage.to_feature`."""
        return _Feature(int64_list=_Int64List(value=np.ascontiguousarray(array).view(np.int64).ravel().tolist()))

    def from_wire(self, tensor: Any) -> Any:
        """See `Storage.from_wire`."""
        return tf.bitcast(tensor, tf.as_dtype(self.dtype))


@dataclass(frozen=True)
class Strings(Storage):
    """Bytes."""

    dtype: np.dtype = OBJECT
    wire: tf.DType = tf.string

    def scalar(self, value: Any) -> tf.train.Feature | None:
        """See `Storage.scalar`."""
        if type(value) is bytes:
            return _Feature(bytes_list=_BytesList(value=[value]))
        return _Feature(bytes_list=_BytesList(value=[value.encode()])) if type(value) is str else None

    def to_feature(self, array: np.ndarray) -> tf.train.Feature:
        """See `Storage.to_feature`."""
        return _Feature(bytes_list=_BytesList(value=array.ravel().tolist()))

    def from_wire(self, tensor: Any) -> Any:
        """See `Storage.from_wire`."""
        return tensor


@dataclass(frozen=True)
class Raw(Storage):
    """All values of a record, little-endian and in row-major order, in one string of bytes."""

    dtype: np.dtype
    wire: tf.DType = tf.string

    def to_feature(self, array: np.ndarray) -> tf.train.Feature:
        """See `Storage.to_feature`."""
        return _Feature(bytes_list=_BytesList(value=[array.tobytes()]))

    def from_wire(self, tensor: Any) -> Any:
        """Returns for strings of shape [rows] the values, [rows, values]."""
        dtype = tf.as_dtype(self.dtype)
        readable = dtype if dtype in _DECODED else _SAME_SIZE[dtype.size]
        values = tf.io.decode_raw(tensor, readable)
        return values if readable == dtype else tf.bitcast(values, dtype)


# What tf.io.decode_raw reads; what it doesn't is read as an integer of that size first.
_DECODED = (
    *(tf.uint8, tf.int8, tf.uint16, tf.int16, tf.int32, tf.int64),
    *(tf.float16, tf.float32, tf.float64, tf.complex64, tf.complex128, tf.bool),
)
_SAME_SIZE = {1: tf.uint8, 2: tf.int16, 4: tf.int32, 8: tf.int64}


def _np(*names: str) -> dict[str, np.dtype]:
    return {name: np.dtype(tf.as_dtype(name).as_numpy_dtype) for name in names}


_LISTS: dict[str, Storage] = {
    **{name: Floats(dtype) for name, dtype in _np("float32", "float16", "bfloat16").items()},
    **{
        name: Integers(dtype)
        for name, dtype in _np("int64", "int32", "int16", "int8", "uint32", "uint16", "uint8", "bool").items()
    },
    **{name: Bits(dtype) for name, dtype in _np("uint64", "float64", "complex64").items()},
    "string": Strings(),
}
_AS_NUMBERS = ("float32", "int64", "int32", "string")
_FIXED: dict[str, Storage] = {
    **{name: Raw(storage.dtype) for name, storage in _LISTS.items()},
    **{name: Raw(dtype) for name, dtype in _np("complex128").items()},
    **{name: _LISTS[name] for name in _AS_NUMBERS},
}


def list_storage(dtype: str) -> Storage:
    """Returns how any number of values of a dtype is written.

    Raises:
        TypeError: If values of the dtype can't be.
    """
    return _look_up(_LISTS, dtype)


def fixed_storage(dtype: str) -> Storage:
    """Returns how a known number of values of a dtype is written: where it is `Raw`, as one string.

    Raises:
        TypeError: If values of the dtype can't be.
    """
    return _look_up(_FIXED, dtype)


def _look_up(known: dict[str, Storage], dtype: str) -> Storage:
    try:
        return known[dtype]
    except KeyError:
        raise TypeError(
            f"dtype must be one of {', '.join(known)}. Received: dtype={dtype!r}. Convert the values to one of these."
        ) from None


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
