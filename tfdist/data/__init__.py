"""TFRecord files in and out of training: read by several workers, each its own part."""

from tfdist.data.features import Feature, Image, Ragged, Sparse, String, Tensor, VariableLength
from tfdist.data.read_position import Position
from tfdist.data.reader import position, read_tfrecords
from tfdist.data.samples import digits
from tfdist.data.sharding import ShardOptions
from tfdist.data.sources import write_tfrecords
from tfdist.data.writer import TFRecordWriter

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
