"""TFRecord files whose records are numbered, and what reading them gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfdist.data import ShardOptions, read_tfrecords
from tfdist.data.files.index import index_path, make_index
from tfdist.data.files.shards import matching_files

ID = {"id": tf.io.FixedLenFeature([], tf.int64)}


def integers(values: Iterable[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def strings(*values: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def record(number: int, **features: tf.train.Feature) -> bytes:
    """A serialized example with its number as `id`."""
    every = {"id": integers([number]), **features}
    return tf.train.Example(features=tf.train.Features(feature=every)).SerializeToString()


def write_shards(
    folder: Path | str,
    counts: Sequence[int],
    *,
    name: str = "part",
    compression: str = "",
    indexed: bool = False,
    content: Callable[[int], bytes] = record,
    first: int = 0,
) -> str:
    """Writes files of these many records, numbered through, with TensorFlow's own writer; returns their pattern."""
    for shard, count in enumerate(counts):
        path = f"{folder}/{name}-{shard:02d}.tfrecord"
        with tf.io.TFRecordWriter(path, compression or None) as writer:
            for number in range(first, first + count):
                writer.write(content(number))
        first += count
    pattern = f"{folder}/{name}-*.tfrecord"
    if indexed:
        write_index(pattern, compression)
    return pattern


def write_index(pattern: str, compression: str = "") -> str:
    make_index(matching_files([pattern]), compression=compression).save(index_path(pattern))
    return index_path(pattern)


def even(records: int, files: int) -> list[int]:
    """Counts of `files` files that share `records`; some get none."""
    return [records * (i + 1) // files - records * i // files for i in range(files)]


def ids_of(dataset: tf.data.Dataset) -> list[list[int]]:
    """Ids of a pass, by step."""
    return [batch["id"].numpy().tolist() for batch in dataset]


def read_ids(pattern: Any, *, workers: int = 1, **options: Any) -> list[list[list[int]]]:
    """Ids of an epoch, by worker and step."""
    return [ids_of(read_tfrecords(pattern, ID, shard=ShardOptions(workers, i), **options)) for i in range(workers)]


def together(by_worker: Sequence[Sequence[list[int]]]) -> list[list[int]]:
    """Ids of the workers by global step; all must have made the same number of steps."""
    return [flat(step) for step in zip(*by_worker, strict=True)]


def flat(lists: Iterable[Iterable[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(lists))
