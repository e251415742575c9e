"""What a dataset was made from and when, and the class that Keras takes for a distributed dataset.

Upstream: `tf.data.Dataset._inputs()` is private, and there is no public way to ask; a dataset that was made before the
process became part of a cluster can't be iterated over any more; Keras takes as distributed what is of one of
TensorFlow's own classes, by name.
Here: all datasets that one was made from; whether one was made before; the class, to inherit from. Seen in TensorFlow
2.21. Can go when there is a public way, and when Keras takes any `tf.distribute.DistributedDataset`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.input_lib import DistributedDatasetsFromFunction

__all__ = ["DistributedDatasetsFromFunction", "is_left_behind", "origins"]


def origins(dataset: Any) -> Iterator[tf.data.Dataset]:
    """The dataset, and all datasets that it was made from; nothing of what is no dataset."""
    if not isinstance(dataset, tf.data.Dataset):
        return
    yield dataset
    for one in dataset._inputs():
        yield from origins(one)


def is_left_behind(dataset: tf.data.Dataset) -> bool:
    """Whether it was made before this process became the chief of a cluster."""
    return "/job:localhost/" in dataset._variant_tensor.device
