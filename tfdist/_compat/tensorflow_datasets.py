"""What a dataset was made from.

Upstream: `tf.data.Dataset._inputs()` is private, and there is no public way to ask.
Here: all datasets that one was made from. Seen in TensorFlow 2.21. Can go when there is a public one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf


def origins(dataset: Any) -> Iterator[tf.data.Dataset]:
    """The dataset, and all datasets that it was made from; nothing of what is no dataset."""
    if not isinstance(dataset, tf.data.Dataset):
        return
    yield dataset
    for one in dataset._inputs():
        yield from origins(one)
