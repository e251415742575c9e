"""The files of one data set and where each of its records lies.

Records are numbered from 0 through all files in the order of their names; everything above works with these numbers.
Known from the index beside the files, else from a scan of their length fields, which takes time but needs no index.
"""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist.data.files import framing
from tfdist.data.files.file_stamp import stamp_of
from tfdist.data.files.index import SUFFIX, DatasetIndex, ShardIndex, find_indexes, scan_shards
from tfdist.data.files.shard_files import as_glob
from tfdist.errors import CorruptRecordError, DataError
from tfdist.log import logger

# Slower scans are worth a word.
_SLOW_SECONDS = 5.0
_OF_COUNT = re.compile(r"(.*)-(\d{5})-of-(\d{5})([^/]*)", re.DOTALL)


class Shards:
    """All files of a data set, checked against their index.

    Attributes:
        paths: The files.
        first_ids: Number of each file's first record, then the count of all; int64 [files + 1].
        compression: Of all files.
        features: What a record holds, as the index says; None if there is no index.
        problems: What was wrong and left out when the files were opened with `skip`.

    Args:
        patterns: Paths or glob patterns.
        compression: Of all files; None is what they have.
        skip: Whether to go on where a file can't be read to its end.
        apart: Whether each pattern is a source of its own, whose records keep together.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        *,
        compression: str | None = None,
        skip: bool = False,
        apart: bool = False,
    ) -> None:
        groups = [matching_files([pattern]) for pattern in patterns] if apart else [matching_files(patterns)]
        self.paths = [path for group in groups for path in group]
        self._first_files = np.cumsum([0, *map(len, groups)])
        indexed = find_indexes(self.paths)
        _check_all_there(self.paths, patterns, indexed)
        self.compression = _common_compression(self.paths, indexed, compression)
        self.features: dict[str, Any] | None = next((i.features for i, _ in indexed.values() if i.features), None)
        self.problems: list[CorruptRecordError] = []
        self._stamps = [stamp_of(path) for path in self.paths]
        shards = self._described(indexed, skip)
        self.first_ids = np.cumsum([0, *(shard.num_records for shard in shards)], dtype=np.int64)
        self._offsets = np.concatenate([shard.offsets for shard in shards])
        self._check_sizes(indexed, skip)
        if not self.num_records:
            raise DataError(
                f"At least one record is needed. Received: {len(self.paths)} files without any, the first is "
                f"{self.paths[0]}. Write the data again."
            )

    @property
    def num_records(self) -> int:
        """Records of all files."""
        return int(self.first_ids[-1])

    @property
    def source_ids(self) -> list[int]:
        """Number of each source's first record, then the count of all."""
        return [int(one) for one in self.first_ids[self._first_files]]

    @property
    def mean_bytes(self) -> float:
        """Mean size of a record, uncompressed, with its frame."""
        return float(self._offsets[self.first_ids[1:] + np.arange(len(self.paths))].sum() / self.num_records)

    def locate(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which file each record is in, its first byte there, and the byte behind it."""
        shard = np.searchsorted(self.first_ids, ids, "right") - 1
        at = ids + shard  # each file has one offset more than records
        return shard, self._offsets[at], self._offsets[at + 1]

    def lengths(self, ids: np.ndarray) -> np.ndarray:
        """Bytes of each record with its frame."""
        _, start, end = self.locate(ids)
        return end - start

    def name(self, record: int) -> tuple[str, int, int]:
        """Of a record: its file, its number there, and its first byte."""
        shard, start, _ = self.locate(np.asarray([record], np.int64))
        return self.paths[shard[0]], int(record - self.first_ids[shard[0]]), int(start[0])

    def check_unchanged(self, shard: int) -> None:
        """Refuses a file that is another than when it was opened.

        Raises:
            DataError: If its size or time differ, or it's gone.
        """
        path, before = self.paths[shard], self._stamps[shard]
        if "://" in path:
            return  # asking costs a request
        now = stamp_of(path)
        if now != before:
            raise DataError(
                f"{path}: expected the file that training began with, {before[0]} bytes. Received: another of "
                f"{now[0]} bytes, so the file was changed during the run. Write new data under new names."
            )

    def _described(self, indexed: dict[str, tuple[DatasetIndex, ShardIndex]], skip: bool) -> list[ShardIndex]:
        plain = [path for path in self.paths if path not in indexed]
        begun = time.monotonic()
        scanned = dict(zip(plain, self._scan(plain, skip), strict=True))
        seconds = time.monotonic() - begun
        if seconds > _SLOW_SECONDS:
            logger.warning(
                "input: finding the records of %d files without an index took %.0f s; "
                "`tfdist data index PATTERN` saves this time",
                len(plain),
                seconds,
            )
        empty = [path for path in plain if not scanned[path].num_records]
        if empty:
            logger.warning("input: %d of %d files are empty, the first is %s", len(empty), len(self.paths), empty[0])
        return [indexed[path][1] if path in indexed else scanned[path] for path in self.paths]

    def _scan(self, paths: list[str], skip: bool) -> list[ShardIndex]:
        if not skip:
            return list(scan_shards(paths, self.compression, checksum=False))
        found: list[ShardIndex] = []
        for path in paths:
            try:
                found += scan_shards([path], self.compression, checksum=False)
            except CorruptRecordError as error:
                what = f"{error.what}; without an index, what follows in the file can't be found"
                self.problems.append(CorruptRecordError(path, error.record, error.offset, what, error.remedy))
                found.append(_whole_part(path, self.compression, error))
        return found

    def _check_sizes(self, indexed: dict[str, tuple[DatasetIndex, ShardIndex]], skip: bool) -> None:
        for path, (size, _) in zip(self.paths, self._stamps, strict=True):
            if path not in indexed or indexed[path][1].size_bytes == size:
                continue
            shard = indexed[path][1]
            if self.compression or size > shard.size_bytes:
                raise DataError(
                    f"{path}: expected {shard.size_bytes} bytes, as its index says. Received: {size} bytes. "
                    "Restore the file, or if it is right write the index again with: tfdist data index PATTERN"
                )
            record = int(np.searchsorted(shard.offsets, size, "right")) - 1
            what = f"the file ends within it or before it, after {size} of {shard.size_bytes} bytes"
            if not skip:
                remedy = "Restore the file, or read with on_corrupt='skip' to go on without the missing records."
                raise CorruptRecordError(path, record, int(shard.offsets[record]), what, remedy)


def matching_files(patterns: Sequence[str]) -> list[str]:
    """The files that match, sorted by name, each once, indexes left out.

    Raises:
        FileNotFoundError: If nothing matches one of the patterns.
    """
    files: set[str] = set()
    for pattern in patterns:
        found = [path for path in tf.io.gfile.glob(as_glob(pattern)) if not path.endswith(SUFFIX)]
        if not found:
            raise FileNotFoundError(
                f"At least one TFRecord file must match. Received: pattern={pattern!r}, "
                f"working directory {os.getcwd()!r}. Correct the path, or write the files first."
            )
        files.update(found)
    if not files:
        raise FileNotFoundError("At least one TFRecord file must be given. Received: pattern=[]. Give paths.")
    return sorted(files)


def missing_files(
    paths: list[str], patterns: Sequence[str], indexed: dict[str, tuple[DatasetIndex, ShardIndex]]
) -> list[str]:
    """Files that an index names and a pattern asks for but aren't there, and such of a `-of-00004`."""
    present = set(paths)
    indexes = {(os.path.dirname(path), index) for path, (index, _) in indexed.items()}
    named = {os.path.join(directory, shard.name) for directory, index in indexes for shard in index.shards}
    matches = filter(None, map(_OF_COUNT.fullmatch, paths))
    # Once for all files of a set: a set of 1,000 would name a million.
    for before, count, behind in {(match[1], match[3], match[4]) for match in matches if int(match[2]) < int(match[3])}:
        named |= {f"{before}-{number:05d}-of-{count}{behind}" for number in range(int(count))}
    globs = [as_glob(pattern) for pattern in patterns]
    return sorted(one for one in named - present if any(fnmatch.fnmatch(one, pattern) for pattern in globs))


def _check_all_there(
    paths: list[str], patterns: Sequence[str], indexed: dict[str, tuple[DatasetIndex, ShardIndex]]
) -> None:
    missing = missing_files(paths, patterns, indexed)
    if missing:
        raise DataError(
            f"All files of a data set must be there. Received: {len(paths)} files, {len(missing)} missing, the first "
            f"is {missing[0]}. Restore them, or give a pattern that names only the files to read."
        )


def _common_compression(
    paths: list[str], indexed: dict[str, tuple[DatasetIndex, ShardIndex]], given: str | None
) -> str:
    if given is not None and given not in framing.COMPRESSIONS:
        raise ValueError(
            f"compression must be one of {framing.COMPRESSIONS}, or None to find out. Received: "
            f"compression={given!r}. Choose one of them."
        )
    said = {index.compression for index, _ in indexed.values()}
    for path in [path for path in paths if path not in indexed][:1]:
        said.add(framing.compression_of(path) if given is None else given)
    if len(said) > 1 or (given is not None and said != {given}):
        received = " and ".join(repr(one) for one in sorted(said))
        raise DataError(
            f"All files must have the same compression{'' if given is None else f', {given!r}'}. Received: {received}. "
            "Leave out `compression` to take what the files have, or read the files separately."
        )
    return said.pop()


def _whole_part(path: str, compression: str, error: CorruptRecordError) -> ShardIndex:
    """The records before the one that can't be read."""
    data = framing.load(path)
    if compression:
        return ShardIndex(os.path.basename(path), len(data), 0, np.zeros(1, np.int64))
    return ShardIndex(os.path.basename(path), len(data), 0, framing.records_of(path, data[: error.offset]))
