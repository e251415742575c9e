"""TFRecord files in and out of training: read by several workers, each its own part.

Names are loaded when first used: a strategy needs few of these modules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfdist.data.features import Feature, Image, Ragged, Sparse, String, Tensor, VariableLength
    from tfdist.data.reading.read_position import Position
    from tfdist.data.reading.reader import position, read_tfrecords
    from tfdist.data.samples import digits
    from tfdist.data.sharding import ShardOptions
    from tfdist.data.writing.sources import write_tfrecords
    from tfdist.data.writing.writer import TFRecordWriter

_MODULES = {
    "Feature": "features",
    "Image": "features",
    "Position": "reading.read_position",
    "Ragged": "features",
    "ShardOptions": "sharding",
    "Sparse": "features",
    "String": "features",
    "TFRecordWriter": "writing.writer",
    "Tensor": "features",
    "VariableLength": "features",
    "digits": "samples",
    "position": "reading.reader",
    "read_tfrecords": "reading.reader",
    "write_tfrecords": "writing.sources",
}

__all__ = [
    "Feature",
    "Image",
    "Position",
    "Ragged",
    "ShardOptions",
    "Sparse",
    "String",
    "TFRecordWriter",
    "Tensor",
    "VariableLength",
    "digits",
    "position",
    "read_tfrecords",
    "write_tfrecords",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"tfdist.data.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'tfdist.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
