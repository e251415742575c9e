"""TFRecord files in and out of training: read by several workers, each its own part.

What writes is loaded when it's first used: training reads.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfdist.data.features import Feature, Image, Ragged, Sparse, String, Tensor, VariableLength
from tfdist.data.read_position import Position
from tfdist.data.reader import position, read_tfrecords
from tfdist.data.samples import digits
from tfdist.data.sharding import ShardOptions

if TYPE_CHECKING:
    from tfdist.data.sources import write_tfrecords
    from tfdist.data.writer import TFRecordWriter

_WRITING = {"TFRecordWriter": "tfdist.data.writer", "write_tfrecords": "tfdist.data.sources"}

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
    if name in _WRITING:
        return getattr(importlib.import_module(_WRITING[name]), name)
    raise AttributeError(f"module 'tfdist.data' has no attribute {name!r}")
