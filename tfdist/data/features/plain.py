"""TensorFlow's own descriptions of features, `tf.io.FixedLenFeature` and the like, as features."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfdist.data.features.feature import Feature
from tfdist.data.features.lengths import Ragged
from tfdist.data.features.storage import list_storage
from tfdist.data.features.tensor import Tensor

_PARTITIONS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        tf.io.RaggedFeature.RowSplits,
        tf.io.RaggedFeature.RowLengths,
        tf.io.RaggedFeature.RowStarts,
        tf.io.RaggedFeature.RowLimits,
        tf.io.RaggedFeature.ValueRowIds,
        tf.io.RaggedFeature.UniformRowLength,
    )
}
CLASSES = {
    kind.__name__: kind
    for kind in (
        tf.io.FixedLenFeature,
        tf.io.FixedLenSequenceFeature,
        tf.io.VarLenFeature,
        tf.io.RaggedFeature,
        tf.io.SparseFeature,
    )
}


@dataclass(frozen=True, eq=False)
class Plain(Feature):
    """A feature that `tf.io.parse_example` knows, read as it reads it.

    Args:
        config: `tf.io.FixedLenFeature` or another of its kind.
    """

    config: Any
    kind: ClassVar[str] = "tf.io"

    def encode(self, name: str, value: Any) -> dict[str, tf.train.Feature]:
        """See `Feature.encode`."""
        return self._writer(name).encode(name, value)

    def parsing(self, name: str) -> dict[str, Any]:
        """See `Feature.parsing`."""
        return {name: self.config}

    def finish(self, name: str, parsed: dict[str, Any]) -> Any:
        """See `Feature.finish`."""
        return parsed[name]

    def to_json(self) -> dict[str, Any]:
        """See `Feature.to_json`."""
        fields = {key: _to_json(value) for key, value in zip(_names(self.config), self.config, strict=True)}
        return {"kind": self.kind, "class": type(self.config).__name__, **fields}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Plain:
        """Returns the feature that has these fields, without its kind."""
        kind = CLASSES[fields["class"]]
        return cls(kind(**{key: _from_json(value) for key, value in fields.items() if key != "class"}))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(type(self.config))

    def _writer(self, name: str) -> Feature:
        """The feature that writes what this one reads."""
        config = self.config
        if isinstance(config, tf.io.FixedLenFeature):
            shape = tuple(tf.TensorShape(config.shape).as_list())
            return _AsList(shape, config.dtype)
        if isinstance(config, tf.io.VarLenFeature):
            return Ragged(config.dtype)
        if isinstance(config, tf.io.RaggedFeature) and not config.partitions and config.value_key in (None, name):
            return Ragged(config.dtype)
        if isinstance(config, tf.io.FixedLenSequenceFeature):
            return Ragged(config.dtype, tuple(tf.TensorShape(config.shape).as_list()))
        raise TypeError(
            f"A tf.io.{type(config).__name__} of this kind can be read, not written. Received: {name}={config!r}. "
            "Declare the feature as tfdist.data.Sparse or tfdist.data.Ragged."
        )


class _AsList(Tensor):
    """A tensor that is always written as a list, as `tf.io.FixedLenFeature` reads it."""

    def encode(self, name: str, value: Any) -> dict[str, tf.train.Feature]:
        """See `Feature.encode`."""
        if list_storage(self.dtype).wire != tf.as_dtype(self.dtype):
            raise TypeError(
                f"tf.io.FixedLenFeature holds float32, int64 or strings. Received: {name} of dtype {self.dtype}. "
                "Declare the feature as tfdist.data.Tensor."
            )
        return super().encode(name, value)


def _names(config: Any) -> tuple[str, ...]:
    """Of a named tuple's fields."""
    return type(config).__match_args__


def _to_json(value: Any) -> Any:
    if isinstance(value, tf.DType):
        return {"dtype": value.name}
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if type(value) in _PARTITIONS.values():
        return {"partition": type(value).__name__, "fields": list(value)}
    if isinstance(value, np.ndarray | np.generic | tf.Tensor):
        return _to_json(np.asarray(value).tolist())
    if isinstance(value, tf.TensorShape):
        return value.as_list()
    if isinstance(value, list | tuple):
        return [_to_json(each) for each in value]
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "dtype" in value:
        return tf.as_dtype(value["dtype"])
    if "base64" in value:
        return base64.b64decode(value["base64"])
    return _PARTITIONS[value["partition"]](*value["fields"])
