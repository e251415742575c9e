"""TFRecord files as a data set of batches, shared among the workers of a job."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfdist.data.features import features_to_json
from tfdist.data.reading.pipeline import build
from tfdist.data.reading.read_options import ReadOptions
from tfdist.data.reading.read_position import Position
from tfdist.data.reading.reader_calls import readers_of
from tfdist.data.reading.record_reader import RecordReader
from tfdist.data.service.served_batches import address_of
from tfdist.data.sharding import ShardOptions, default_shard, resolved

Path = str | os.PathLike[str]


def read_tfrecords(
    pattern: Path | Sequence[Path] | Mapping[Path, float],
    features: Mapping[str, Any] | None = None,
    *,
    batch_size: int,
    label: str | None = None,
    shuffle: bool | str = False,
    seed: int | None = None,
    shuffle_buffer: int | None = None,
    group_by_length: int = 0,
    shard: ShardOptions | None = None,
    sharding: str = "auto",
    drop_remainder: bool = False,
    compression: str | None = None,
    cache: Path | None = None,
    augment: Mapping[str, Any] | None = None,
    data_service: str | bool | None = None,
    on_corrupt: str = "raise",
    max_skipped: int = 100,
) -> tf.data.Dataset:
    """Reads TFRecord files of `tf.train.Example` in batches.

    Under a strategy of several workers each reads its own part; under others the process reads everything once. Each
    record is read exactly once an epoch, by one worker. All workers make the same number of steps; in the last ones a
    worker may get a batch with fewer rows, or none. Give the result to `fit`, `evaluate` or `predict` of a model under
    a tfdist strategy as it is, and don't repeat it.

    Args:
        pattern: Path, glob pattern, or list of these. Files are read in the order of their names. All workers must see
            the same files. A mapping of patterns to weights mixes these sources: an epoch has as many records as all
            sources together, each source's share is its weight's, anywhere in the epoch to within a record, and small
            sources are repeated.
        features: What to read: name -> feature of `tfdist.data` or of `tf.io`. By default all that the index says.
        batch_size: Rows of a global batch, of all workers together.
        label: Which feature is what the model learns; batches are then pairs.
        shuffle: False; "global" or True: all records anew each epoch, in the same global batches for any number of
            workers, for 8 bytes of memory a record; "local": each worker those of its own part within a buffer, which
            reads files from front to back.
        seed: Of the shuffle, the same on all workers. None is 0.
        shuffle_buffer: How many records a local shuffle mixes at a time; by default 16,384, or 128 MB if that is less.
        group_by_length: If not 0, records of similar size share a batch, so that text is padded less: this many
            batches at a time are sorted by size and put in random order.
        shard: This worker's share; by default asked from the strategy in scope, else from TF_CONFIG.
        sharding: Who reads what, if `shuffle` is False or "local": whole "files", runs of "records", or the worker's
            rows of each global batch, "batches", which keeps the global batches in the order of the files. "auto" is
            "files" if that is balanced, else "records".
        drop_remainder: Whether to leave out the last, smaller global batch, so that all batches have one shape.
        compression: "", "GZIP" or "ZLIB"; None finds out.
        cache: "memory" keeps the bytes of all records that were read; a directory keeps local, uncompressed copies of
            the files, for remote or compressed ones, also for later runs.
        augment: For training: feature name -> Keras layer, or list of layers, that change it at random, such as
            RandomFlip. The same `seed` gives the same changes, whatever seeds the layers were given.
        data_service: "grpc://HOST:PORT" of a tf.data service, whose data workers then read, parse, decode and augment
            for this process; batches and their order stay the same. None takes the one that `tfdist launch
            --data_workers=N` started, if any; False reads here.
        on_corrupt: What to do at a record that is broken or isn't what `features` says: "raise" an error that names it,
            or "skip" it, so that its batch has a row less, with a warning.
        max_skipped: How many different records may be skipped on a worker before it is an error.

    Returns:
        A `tf.data.Dataset` of `{name: tensor}`, or of `({name: tensor}, label)`; tensors have the rows of this worker
        in their first dimension.

    Raises:
        FileNotFoundError: If no file matches.
        DataError: If files are missing, or not those of their index; while reading, if they can't be read.
        CorruptRecordError: If a record is broken; with its file, number and first byte.
        ValueError: If batch_size is less than the number of workers, or an option is wrong.

    Example:
        >>> features = {
        ...     "x": tfdist.data.Tensor([4], "float32"),
        ...     "y": tfdist.data.Tensor([], "int64"),
        ... }
        >>> train = tfdist.data.read_tfrecords("train-*", features, batch_size=64, label="y", shuffle=True)
    """
    patterns, weights = _patterns(pattern)
    options = ReadOptions(
        patterns=patterns,
        weights=weights,
        features=None if features is None else features_to_json(features),
        batch_size=batch_size,
        label=label,
        shuffle="global" if shuffle is True else shuffle,
        seed=0 if seed is None else seed,
        shuffle_buffer=shuffle_buffer,
        group_by_length=group_by_length,
        shard=default_shard() if shard is None else shard,
        sharding=resolved(sharding),
        drop_remainder=drop_remainder,
        compression=compression,
        cache=None if cache is None else os.fspath(cache),
        on_corrupt=on_corrupt,
        max_skipped=max_skipped,
    )
    address = address_of(data_service)
    reader = RecordReader(options)
    reader.log()
    return build(reader, augment, address)


def position(dataset: tf.data.Dataset) -> Position:
    """Where reading of a data set of `read_tfrecords` stands, which a checkpoint can hold.

    Args:
        dataset: What `read_tfrecords` returned, or something made from it.

    Raises:
        ValueError: If it is not made from exactly one.
    """
    readers = readers_of(dataset)
    if len(readers) != 1:
        raise ValueError(
            f"dataset must be made from one data set of read_tfrecords. Received: dataset={dataset!r}, made from "
            f"{len(readers)}. Ask for the position of each before they are put together."
        )
    return readers[0].position


def _patterns(pattern: Any) -> tuple[tuple[str, ...], tuple[float, ...]]:
    if isinstance(pattern, (str, os.PathLike)):
        return (os.fspath(pattern),), ()
    weights = tuple(float(weight) for weight in pattern.values()) if isinstance(pattern, Mapping) else ()
    return tuple(os.fspath(one) for one in pattern), weights
