"""TFRecord files in and out of training: read by several workers, each its own rows of every
batch."""

from tfdist.data.features import Feature, Image, Ragged, Sparse, String, Tensor, VariableLength
from tfdist.data.reader import read_tfrecords
from tfdist.data.samples import digits
from tfdist.data.sharding import ShardOptions

__all__ = [
    "Feature",
    "Image",
    "Ragged",
    "ShardOptions",
    "Sparse",
    "String",
    "Tensor",
    "VariableLength",
    "digits",
    "read_tfrecords",
]
