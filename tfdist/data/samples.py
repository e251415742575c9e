"""Data that comes with the package, for demonstrations and tests."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from tfdist.data.reading.reader import read_tfrecords
from tfdist.data.sharding import ShardOptions

FOLDER = Path(__file__).parent / "digits"
_ROWS = {"train": 1437, "test": 360}
_MAX_PIXEL = 16.0
_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}


def digits(
    split: str,
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int | None = None,
    shard: ShardOptions | None = None,
) -> tf.data.Dataset:
    """Reads the UCI handwritten digits that come with the package.

    Credits and licence are in CREDITS.md beside the files.

    Args:
        split: "train", 1,437 images, or "test", 360 others.
        batch_size: Rows of a global batch, of all workers together.
        shuffle: Whether to shuffle, differently each epoch.
        seed: Of the shuffle; the same on all workers. None is 0.
        shard: This worker's share; by default asked from the strategy in scope, else from
            TF_CONFIG.

    Returns:
        A `tf.data.Dataset` of `(image, label)`: float32 of shape (rows, 8, 8, 1) from 0 to 1, and
        int64 of shape (rows,) from 0 to 9.

    Raises:
        ValueError: If there is no such split, or batch_size is less than the number of workers.

    Example:
        >>> train = tfdist.data.digits("train", batch_size=64, shuffle=True)
        >>> model.fit(train, epochs=10)
    """
    if split not in _ROWS:
        raise ValueError(f"split must be one of {sorted(_ROWS)}. Received: split={split!r}. Choose one of them.")
    dataset = read_tfrecords(
        str(FOLDER / f"{split}-*.tfrecord"),
        _FEATURES,
        batch_size=batch_size,
        label="label",
        shuffle=shuffle,
        seed=seed,
        # In the order of the files for any number of workers, so that `predict` returns rows in that order.
        sharding="batches",
        shard=shard,
    )
    return dataset.map(_decode)


def _decode(features: dict[str, tf.Tensor], label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    pixels = tf.io.decode_raw(features["image"], tf.uint8)
    return tf.reshape(tf.cast(pixels, tf.float32) / _MAX_PIXEL, [-1, 8, 8, 1]), label
