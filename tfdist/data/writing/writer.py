"""Writes records into the TFRecord files of a data set, with an index."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from tfdist.cluster.suggest import nearest_of
from tfdist.data.features import as_features, features_to_json
from tfdist.data.files.framing import COMPRESSIONS
from tfdist.data.files.index import DatasetIndex, make_index
from tfdist.data.files.shard_files import MOST_SHARDS, ShardFiles
from tfdist.data.writing.shard_threads import Record, ShardThreads
from tfdist.data.writing.staging import Staging, clear_errors

_Example = tf.train.Example
_Features = tf.train.Features
# Updating a bar takes longer than writing a small record.
_BAR_EVERY_RECORDS = 100


@dataclass(frozen=True)
class WriteOptions:
    """How a data set is written.

    Args:
        num_shards: How many files.
        compression: None, "GZIP" or "ZLIB".
        num_records: How many records will come, if that is known.
        overwrite: Whether to replace shards of the same pattern.
        num_threads: Threads that write; None is one a shard, as far as there are cores.
        progress: Whether to show a bar; None is if stderr is a terminal.

    Raises:
        TypeError: If an option has another type.
        ValueError: If it has another value.
    """

    num_shards: int
    compression: str | None = None
    num_records: int | None = None
    overwrite: bool = False
    num_threads: int | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        _check_count("num_shards", self.num_shards, 1, MOST_SHARDS, "Use some hundred MB a shard.")
        if self.num_records is not None:
            _check_count("num_records", self.num_records, 0, sys.maxsize, "Leave it out if it isn't known.")
        if self.num_threads is not None:
            _check_count("num_threads", self.num_threads, 1, 1024, "Leave it out for one a core.")
        if (self.compression or "") not in COMPRESSIONS:
            raise ValueError(
                'compression must be None, "GZIP" or "ZLIB". '
                f"Received: compression={self.compression!r}. Choose one of them."
            )

    @property
    def shows_progress(self) -> bool:
        """Whether to show a bar."""
        return sys.stderr.isatty() if self.progress is None else self.progress


class TFRecordWriter:
    """Writes records into TFRecord files, all of them or none.

    The files are made in a hidden directory, in threads, and appear when the writer is closed: first the shards, then
    their index. If an exception leaves the `with` block, nothing remains.

    Without `num_records` the records are dealt to the shards in turn, so that shard sizes differ by one record at most;
    with it, each shard has a contiguous part of them, and reading gives them in the order in which they were written.

    Args:
        pattern: Path of the files, in whose name `*` becomes `00000-of-00004`; without a `*`, `-*.tfrecord` is added.
            The same pattern reads them.
        features: What a record holds: name -> `tfdist.data.Tensor` or another feature.
        num_shards: How many files; take a multiple of the number of workers, and at least 100 MB a file.
        compression: None, "GZIP" or "ZLIB". Compressed files are smaller, but can't be read from the middle.
        num_records: How many records will come, if that is known.
        overwrite: Whether to replace shards of the same pattern, also of another count. By default they are an error.
        num_threads: Threads that compress and write; None is one a shard, as far as there are cores.
        progress: Whether to show a bar; None is if stderr is a terminal.

    Raises:
        FileExistsError: If shards of the pattern are there already.
        ValueError: If an option is wrong.

    Example:
        >>> features = {"image": tfdist.data.Tensor((28, 28, 1), "uint8"), "label": tfdist.data.Tensor((), "int64")}
        >>> with tfdist.data.TFRecordWriter("data/train-*.tfrecord", features, num_shards=4) as writer:
        ...     for image, label in zip(images, labels):
        ...         writer.write(image=image, label=label)
    """

    def __init__(
        self,
        pattern: str | os.PathLike[str],
        features: Mapping[str, Any] | None,
        *,
        num_shards: int,
        compression: str | None = None,
        num_records: int | None = None,
        overwrite: bool = False,
        num_threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self._options = WriteOptions(num_shards, compression, num_records, overwrite, num_threads, progress)
        self._features = None if features is None else as_features(features)
        self._files = ShardFiles(os.fspath(pattern) if isinstance(pattern, os.PathLike) else pattern)
        self._files.check_free(overwrite=overwrite)
        self._names = [self._files.name(shard, num_shards) for shard in range(num_shards)]
        self._count = 0
        self._shard = 0  # of the record before
        self._index: DatasetIndex | None = None
        self._is_open = True
        self._staging = Staging(self._files)
        paths = [self._staging.path(name) for name in self._names]
        self._threads = ShardThreads(paths, self._options.compression or "", num_threads)
        self._bar = tqdm(desc="write", total=num_records, unit=" records", disable=not self._options.shows_progress)

    def write(self, /, **record: Any) -> None:
        """Writes one record.

        Args:
            **record: Value of each feature, by its name.

        Raises:
            TypeError: If a value has another dtype or type than its feature. Nothing was written of the record.
            ValueError: If a value has another shape, a feature is missing or unknown, the writer is closed, or there
                are more than `num_records`. Nothing was written of the record.
            OSError: If an earlier record could not be written; the writer is of no more use.
        """
        features = self._features
        if features is None or record.keys() != features.keys():
            raise self._wrong_names(record)
        encoded: dict[str, tf.train.Feature] = {}
        slow: dict[str, Any] = {}
        # Here and not in a thread: Python encodes in one thread at a time anyway, and so a wrong value is reported by
        # the call that brought it.
        for name, value in record.items():
            feature = features[name]
            if feature.encodes_slowly:
                slow[name] = feature.snapshot(name, value)
            else:
                encoded.update(feature.encode(name, value))
        example = _Example(features=_Features(feature=encoded))
        if not slow:
            self.write_serialized(example.SerializeToString())
            return
        size_bytes = sum(getattr(value, "nbytes", 0) or len(value) for value in slow.values())
        self._put(lambda: self._encode_slow(example, slow), example.ByteSize() + size_bytes)

    def write_serialized(self, example: bytes) -> None:
        """Writes one record that is a serialized `tf.train.Example` already; it is not looked into.

        Args:
            example: The record's bytes.

        Raises:
            ValueError: If the writer is closed, or there are more than `num_records`.
            OSError: If an earlier record could not be written; the writer is of no more use.
        """
        self._put(example, len(example))

    def close(self) -> None:
        """Finishes the files and their index, and lets them appear. Does nothing if the writer is closed.

        Raises:
            ValueError: If there are fewer records than `num_records`. Nothing remains then.
            OSError: If something could not be written. Nothing remains then.
            FileExistsError: If other shards of the pattern appeared meanwhile. Nothing remains of these.
        """
        if not self._is_open:
            return
        try:
            with clear_errors(self._files.pattern):
                self._finish()
        except BaseException:
            self.abort()
            raise
        self._is_open = False
        self._bar.close()

    @property
    def index(self) -> DatasetIndex:
        """What was written and where.

        Raises:
            ValueError: If the writer isn't closed, or gave up.
        """
        if self._is_open or self._index is None:
            raise ValueError("The writer must be closed. Received: index before close(). Ask behind the `with` block.")
        return self._index

    def abort(self) -> None:
        """Gives up: nothing remains of what was written. Does nothing if the writer is closed."""
        if self._is_open:
            self._is_open = False
            self._bar.close()
            self._threads.abort()
            self._staging.discard()

    def __enter__(self) -> TFRecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _put(self, record: Record, size_bytes: int) -> None:
        if not self._is_open:
            raise ValueError("The writer must be open. Received: a record after close(). Make another writer.")
        shard = self._next_shard()
        with clear_errors(self._files.pattern):
            if shard != self._shard and self._options.num_records is not None:
                self._threads.close_shard(self._shard)
            self._threads.put(shard, record, size_bytes)
        self._shard = shard
        self._count += 1
        if self._count % _BAR_EVERY_RECORDS == 0:
            self._bar.update(_BAR_EVERY_RECORDS)

    def _next_shard(self) -> int:
        shards, records = self._options.num_shards, self._options.num_records
        if records is None:
            return self._count % shards
        if self._count >= records:
            raise ValueError(
                f"At most num_records={records} records may be written. Received: one more. Correct num_records, or "
                "leave it out."
            )
        # Shard s has the records from records * s // shards on, to where the next one begins.
        return ((self._count + 1) * shards - 1) // records

    def _encode_slow(self, example: tf.train.Example, slow: dict[str, Any]) -> bytes:
        for name, value in slow.items():
            for key, feature in self._features[name].encode(name, value).items():  # type: ignore[index]
                example.features.feature[key].CopyFrom(feature)
        return bytes(example.SerializeToString())

    def _finish(self) -> None:
        expected = self._options.num_records
        if expected is not None and self._count != expected:
            raise ValueError(
                f"As many records must be written as num_records={expected} says. Received: {self._count} records. "
                "Correct num_records, or leave it out."
            )
        self._threads.finish()
        self._bar.update(self._count - self._bar.n if not self._bar.disable else 0)
        self._index = self._make_index()
        index = os.path.basename(self._files.index)
        self._index.save(self._staging.path(index))
        self._files.check_free(overwrite=self._options.overwrite)
        self._staging.publish(self._names, index)

    def _make_index(self) -> DatasetIndex:
        features = None if self._features is None else features_to_json(self._features)
        paths = [self._staging.path(name) for name in self._names]
        progress = self._options.shows_progress
        found = make_index(paths, compression=self._options.compression or "", features=features, progress=progress)
        shards = [dataclasses.replace(shard, name=name) for shard, name in zip(found.shards, self._names, strict=True)]
        return dataclasses.replace(found, shards=tuple(shards))

    def _wrong_names(self, record: Mapping[str, Any]) -> Exception:
        if self._features is None:
            return ValueError(
                "Features must be given to write records by name. Received: features=None. Use write_serialized."
            )
        wrong = next((name for name in record if name not in self._features), None)
        if wrong is None:
            missing = [name for name in self._features if name not in record]
            return ValueError(
                f"Each record must have all features, {sorted(self._features)}. Received: a record without "
                f"{', '.join(missing)}. Give all of them."
            )
        near = nearest_of(wrong, self._features)
        hint = f"Did you mean {near}?" if near else "Leave it out, or declare it."
        return ValueError(f"Features are {sorted(self._features)}. Received: {wrong}=... {hint}")


def _check_count(name: str, value: Any, least: int, most: int, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer. Received: {name}={value!r}. {remedy}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}. Received: {name}={value}. {remedy}")
