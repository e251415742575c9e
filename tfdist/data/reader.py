"""TFRecord files as a data set of batches, shared among the workers of a job.

Every worker reads all files, cuts the same global batches, and parses only its own rows of each
(see `sharding`). So a step's global batch is the same for one worker and for many, whatever their
number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfdist.data.rows import mark_share, slice_rows
from tfdist.data.sharding import ShardOptions, default_shard

# Records, not bytes: 16,384 images of 10 KB are 160 MB. A data set smaller than this is shuffled
# uniformly.
DEFAULT_SHUFFLE_BUFFER = 16_384


def read_tfrecords(
    pattern: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    features: Mapping[str, Any],
    *,
    batch_size: int,
    label: str | None = None,
    shuffle: bool = False,
    seed: int | None = None,
    shuffle_buffer: int = DEFAULT_SHUFFLE_BUFFER,
    shard: ShardOptions | None = None,
) -> tf.data.Dataset:
    """Reads TFRecord files of `tf.train.Example` in batches.

    On several workers each gets its rows of every global batch: the union over the workers is what
    one worker alone gets, step by step, and each record is read once an epoch. All workers make the
    same number of steps; in the last one a worker may get a batch without rows. Give the result to
    `fit`, `evaluate` or `predict` of a model under a tfdist strategy as it is.

    Args:
        pattern: Path, glob pattern, or list of these. Files are read in the order of their names.
            All workers must see the same files.
        features: What to read, as `tf.io.parse_example` takes it: name -> `tf.io.FixedLenFeature`,
            `tf.io.VarLenFeature` or `tf.io.RaggedFeature`.
        batch_size: Rows of a global batch, of all workers together.
        label: Which feature is what the model learns; batches are then pairs.
        shuffle: Whether to shuffle the records, differently each epoch.
        seed: Of the shuffle; None is 0, so that all workers agree. It must be the same on all
            workers, and so must the seed of `tf.random.set_seed` or `keras.utils.set_random_seed`
            if one is set: TensorFlow mixes them.
        shuffle_buffer: How many records to shuffle at a time.
        shard: This worker's share; by default asked from the strategy in scope, else from
            TF_CONFIG.

    Returns:
        A `tf.data.Dataset` of `{name: tensor}`, or of `({name: tensor}, label)`; tensors have the
        rows of this worker in their first dimension.

    Raises:
        FileNotFoundError: If no file matches.
        ValueError: If batch_size is less than the number of workers, or label is not in features.

    Example:
        >>> features = {
        ...     "x": tf.io.FixedLenFeature([4], tf.float32),
        ...     "y": tf.io.FixedLenFeature([], tf.int64),
        ... }
        >>> train = tfdist.data.read_tfrecords("train-*", features, batch_size=64, label="y")
    """
    shard = default_shard() if shard is None else shard
    _check_batch_size(batch_size, shard)
    _check_label(label, features)
    dataset = tf.data.TFRecordDataset(matching_files(pattern))
    if shuffle:
        dataset = dataset.shuffle(shuffle_buffer, seed=seed or 0, reshuffle_each_iteration=True)

    def parse(serialized: tf.Tensor) -> Any:
        own = slice_rows(serialized, shard.index, shard.num_shards)
        parsed = tf.io.parse_example(own, dict(features))
        return parsed if label is None else (parsed, parsed.pop(label))

    dataset = dataset.batch(batch_size).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    # The whole data set is left unmarked: a strategy takes it as global batches and cuts them.
    dataset = dataset if shard.num_shards == 1 else mark_share(dataset)
    return dataset.prefetch(tf.data.AUTOTUNE)


def matching_files(
    pattern: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> list[str]:
    """Returns the files that match, sorted by name, each once.

    Raises:
        FileNotFoundError: If nothing matches one of the patterns.
    """
    patterns = [pattern] if isinstance(pattern, (str, os.PathLike)) else pattern
    files: set[str] = set()
    for each in patterns:
        found = tf.io.gfile.glob(os.fspath(each))
        if not found:
            raise FileNotFoundError(
                f"At least one TFRecord file must match. Received: pattern={os.fspath(each)!r}, "
                f"working directory {os.getcwd()!r}. Correct the path, or write the files first."
            )
        files.update(found)
    if not files:
        raise FileNotFoundError("At least one TFRecord file must be given. Received: pattern=[]. Give paths.")
    return sorted(files)


def _check_batch_size(batch_size: int, shard: ShardOptions) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise TypeError(
            f"batch_size must be an integer. Received: batch_size={batch_size!r}. "
            "Give the rows of a global batch, of all workers together."
        )
    if batch_size < shard.num_shards:
        raise ValueError(
            f"batch_size counts the rows of all workers together, so it must be at least their "
            f"number, {shard.num_shards}. Received: batch_size={batch_size}. "
            "Use a larger batch or fewer workers."
        )


def _check_label(label: str | None, features: Mapping[str, Any]) -> None:
    if label is not None and label not in features:
        raise ValueError(
            f"label must be one of the features, {sorted(features)}. Received: label={label!r}. "
            "Add it to features, or name another one."
        )
