"""Writes what is in arrays, data sets, iterables and files of other kinds as TFRecord files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist.data.features import Feature, as_features
from tfdist.data.files.index import DatasetIndex
from tfdist.data.writing.csv_source import CsvSource
from tfdist.data.writing.infer import check_record, features_of_columns, features_of_record, features_of_spec
from tfdist.data.writing.keras_source import PREFIX, keras_columns
from tfdist.data.writing.writer import TFRecordWriter
from tfdist.errors import DataError


@dataclass(frozen=True)
class Source:
    """Where records come from.

    Attributes:
        records: They themselves, read once.
        features: What they hold.
        num_records: How many there are, if that is known.
    """

    records: Iterable[Mapping[str, Any]]
    features: Mapping[str, Feature]
    num_records: int | None = None


def write_tfrecords(
    source: Any,
    pattern: str | os.PathLike[str],
    features: Mapping[str, Any] | None = None,
    *,
    num_shards: int,
    split: str = "train",
    compression: str | None = None,
    overwrite: bool = False,
    num_threads: int | None = None,
    progress: bool | None = None,
) -> DatasetIndex:
    """Writes records from elsewhere into TFRecord files with an index.

    Where their number is known, each shard has a contiguous part of them; otherwise they are dealt in turn.

    Args:
        source: A mapping of names to NumPy arrays with the records in dimension 0; a `tf.data.Dataset` of single
            records (mappings, or pairs of these or of a tensor, `x`, and the `label`); an iterable of mappings; or the
            path of a `.csv` or `.tsv` file with a header or of an `.npz` file, or `"keras:NAME"`, a data set of
            `keras.datasets`.
        pattern: Path of the files, as `TFRecordWriter` takes it.
        features: What a record holds. By default it's inferred: NumPy dtypes and shapes are kept; Python's int is
            int64 and float is float32; columns of a CSV file are int64, float32 or strings.
        num_shards: How many files.
        split: "train" or "test", of a data set of Keras.
        compression: None, "GZIP" or "ZLIB".
        overwrite: Whether to replace shards of the same pattern.
        num_threads: Threads that write; None is one a shard, as far as there are cores.
        progress: Whether to show a bar; None is if stderr is a terminal.

    Returns:
        The index: how many records there are, and where.

    Raises:
        TypeError: If there is no way to read such a source, or a value has no feature.
        ValueError: If arrays differ in length, or a file is wrong.
        FileExistsError: If shards of the pattern are there already.

    Example:
        >>> tfdist.data.write_tfrecords({"image": images, "label": labels}, "data/train-*.tfrecord", num_shards=4)
        >>> tfdist.data.write_tfrecords("keras:mnist", "mnist/test-*.tfrecord", num_shards=1, split="test")
    """
    found = open_source(source, None if features is None else as_features(features), split)
    with TFRecordWriter(
        pattern,
        found.features,
        num_shards=num_shards,
        compression=compression,
        num_records=found.num_records,
        overwrite=overwrite,
        num_threads=num_threads,
        progress=progress,
    ) as writer:
        for record in found.records:
            writer.write(**record)
    return writer.index


def open_source(source: Any, features: Mapping[str, Feature] | None, split: str = "train") -> Source:
    """Returns the records of a source, and what they hold.

    Raises:
        TypeError: If there is no way to read it.
    """
    if isinstance(source, str | os.PathLike):
        return _of_path(os.fspath(source), features, split)
    if isinstance(source, Mapping):
        return _of_columns(source, features)
    if isinstance(source, tf.data.Dataset):
        return _of_dataset(source, features)
    if isinstance(source, Iterable):
        return _of_iterable(source, features)
    raise TypeError(
        "source must be a mapping of arrays, a tf.data.Dataset, an iterable of mappings, the path of a .csv, .tsv or "
        f".npz file, or 'keras:NAME'. Received: source={source!r}. Convert it to one of these."
    )


def _of_path(path: str, features: Mapping[str, Feature] | None, split: str) -> Source:
    if path.startswith(PREFIX):
        return _of_columns(keras_columns(path.removeprefix(PREFIX), split), features)
    if not path.endswith((".csv", ".tsv", ".npz")):
        raise ValueError(
            f"A file must be .csv, .tsv or .npz, and a data set of Keras 'keras:NAME'. Received: source={path!r}. "
            "Convert it, or read it in Python and give its records."
        )
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"The file must be there. Received: source={path!r}. Correct the path.")
    if path.endswith(".npz"):
        return _of_columns(_arrays(path), features)
    records = CsvSource(path, features)
    return Source(records, records.features)


def _arrays(path: str) -> dict[str, np.ndarray]:
    try:
        with tf.io.gfile.GFile(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            f"{path}: expected arrays as numpy.savez writes them, none of objects. Received: {error}. Write it again."
        ) from error


def _of_columns(columns: Mapping[str, Any], features: Mapping[str, Feature] | None) -> Source:
    arrays = {name: _column(column) for name, column in columns.items()}
    lengths = {name: len(array) if array.ndim else None for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise ValueError(
            f"Arrays must have the same number of records in dimension 0. Received: {lengths}. Give arrays that belong "
            "together."
        )
    (count,) = set(lengths.values())
    names = list(arrays)
    records = (dict(zip(names, values, strict=True)) for values in zip(*arrays.values(), strict=True))
    return Source(records, features or features_of_columns(arrays), count)


def _column(column: Any) -> np.ndarray:
    if isinstance(column, np.ndarray):
        return column
    try:
        return np.asarray(column)
    except ValueError:  # lists of different lengths
        result = np.empty(len(column), object)
        result[:] = [list(each) for each in column]
        return result


def _of_dataset(dataset: tf.data.Dataset, features: Mapping[str, Feature] | None) -> Source:
    count = int(dataset.cardinality())
    if count == tf.data.INFINITE_CARDINALITY:
        raise ValueError("The data set must end. Received: an infinite one. Leave out repeat(), or use take().")
    spec = _named(dataset.element_spec)
    records = (_named(element) for element in dataset.as_numpy_iterator())
    known = count if count >= 0 else None
    return Source(records, features or features_of_spec(spec), known)


def _named(element: Any) -> dict[str, Any]:
    if isinstance(element, Mapping):
        return dict(element)
    if isinstance(element, tuple) and len(element) == 2 and not _is_named(element):
        first, label = element
        named = dict(first) if isinstance(first, Mapping) else {"x": first}
        if "label" not in named and not isinstance(label, Mapping | tuple):
            return {**named, "label": label}
    elif not isinstance(element, tuple) or _is_named(element):
        return {"x": element}
    raise TypeError(
        "Elements must be mappings, tensors, or pairs of these and a label. "
        f"Received: {str(element)[:80]}. Make mappings of them with map()."
    )


def _is_named(element: tuple[Any, ...]) -> bool:
    """Whether it's one value made of several, such as `tf.SparseTensorValue`."""
    return hasattr(element, "__match_args__")


def _of_iterable(source: Iterable[Any], features: Mapping[str, Feature] | None) -> Source:
    iterator: Iterator[Any] = iter(source)
    count = len(source) if isinstance(source, Sized) else None
    if features is None:
        first = next(iterator, None)
        if first is None:
            raise ValueError("At least one record is needed to infer features. Received: none. Give features.")
        features = features_of_record(first)
        iterator = itertools.chain([first], iterator)
    return Source(map(check_record, iterator), features, count)
