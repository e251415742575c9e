"""Features of one shape: numbers of any dtype, and strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from tfdist.data.features.feature import Feature, checked_shape
from tfdist.data.features.storage import Raw, fixed_storage
from tfdist.data.features.values import as_array, check_shape, dtype_name


@dataclass(frozen=True)
class Tensor(Feature):
    """Values of one fixed shape.

    float32, int64, int32 and strings are written as lists, which any program can read; other dtypes as their bytes,
    bit by bit. Read as a dense tensor [rows, *shape].

    Args:
        shape: Of one record's value; () for a scalar.
        dtype: NumPy or TensorFlow dtype, or its name.

    Raises:
        TypeError: If the shape is no sequence of integers, or values of the dtype can't be written.
        ValueError: If a dimension is negative.

    Example:
        >>> features = {"image": tfdist.data.Tensor((28, 28, 1), "uint8"), "label": tfdist.data.Tensor((), "int64")}
    """

    shape: Sequence[int] = ()
    dtype: Any = "float32"
    kind: ClassVar[str] = "tensor"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checked_shape(self.shape))
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        fixed_storage(self.dtype)

    def encode(self, name: str, value: Any) -> dict[str, tf.train.Feature]:
        """See `Feature.encode`."""
        storage = fixed_storage(self.dtype)
        scalar = None if self.shape else storage.scalar(value)
        if scalar is not None:
            return {name: scalar}
        array = as_array(name, value, storage.dtype)
        check_shape(name, array, self.shape)  # type: ignore[arg-type]
        return {name: storage.to_feature(array)}

    def parsing(self, name: str) -> dict[str, Any]:
        """See `Feature.parsing`."""
        storage = fixed_storage(self.dtype)
        shape = () if isinstance(storage, Raw) else self.shape
        return {name: tf.io.FixedLenFeature(shape, storage.wire)}

    def finish(self, name: str, parsed: dict[str, Any]) -> Any:
        """See `Feature.finish`."""
        storage = fixed_storage(self.dtype)
        values = storage.from_wire(parsed[name])
        if isinstance(storage, Raw):
            rows = parsed[name].shape[0] if parsed[name].shape[0] is not None else tf.shape(values)[0]
            values = tf.reshape(values, [rows, *self.shape])
        return values


@dataclass(frozen=True)
class String(Feature):
    """One string, of text or of bytes; text is written as UTF-8. Read as a tensor of strings [rows].

    Example:
        >>> features = {"title": tfdist.data.String()}
    """

    kind: ClassVar[str] = "string"

    def encode(self, name: str, value: Any) -> dict[str, tf.train.Feature]:
        """See `Feature.encode`."""
        storage = fixed_storage("string")
        scalar = storage.scalar(value)
        if scalar is not None:
            return {name: scalar}
        array = as_array(name, value, storage.dtype)
        check_shape(name, array, ())
        return {name: storage.to_feature(array)}

    def parsing(self, name: str) -> dict[str, Any]:
        """See `Feature.parsing`."""
        return {name: tf.io.FixedLenFeature((), tf.string)}

    def finish(self, name: str, parsed: dict[str, Any]) -> Any:
        """See `Feature.finish`."""
        return parsed[name]
