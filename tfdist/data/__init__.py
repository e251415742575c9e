"""TFRecord files in and out of training: read by several workers, each its own rows of every
batch."""

from tfdist.data.reader import read_tfrecords
from tfdist.data.samples import digits
from tfdist.data.sharding import ShardOptions

__all__ = ["ShardOptions", "digits", "read_tfrecords"]
