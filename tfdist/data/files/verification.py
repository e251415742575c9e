"""Reads every byte of TFRecord files, and says of each fault where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfdist.data.features import Feature
from tfdist.data.files import framing
from tfdist.data.files.data_files import DataFiles, parse_all
from tfdist.data.files.index import ShardIndex
from tfdist.data.files.record_check import content_check
from tfdist.errors import CorruptRecordError

# Records are parsed together; one by one only where that fails.
_BATCH = 256
_Record = tuple[int, int, bytes]  # its number, its first byte, and what is in it


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        path: Of the file.
        what: In words.
        record: Number in the file, from 0; None if it concerns the whole file.
        offset: First byte of the record, uncompressed.
    """

    path: str
    what: str
    record: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        where = "" if self.record is None else f" record {self.record} at byte {self.offset}:"
        return f"{self.path}:{where} {self.what}"


@dataclass
class Verification:
    """Looks through files; `num_records` counts as it goes.

    Args:
        files: What to look through.
        progress: Whether to show a bar.
    """

    files: DataFiles
    progress: bool = False
    num_records: int = 0

    @property
    def features(self) -> dict[str, Feature]:
        """By which records are parsed; none if no index says it."""
        return self.files.features or {}

    def faults(self) -> Iterator[Fault]:
        """Yields each fault as it is found."""
        for path in self.files.missing:
            yield Fault(path, "the file is missing")
        for path in tqdm(self.files.paths, "verify", unit=" files", disable=not self.progress, leave=False):
            found = list(self._of_file(path))
            yield from found or self._of_index(path)

    def _of_file(self, path: str) -> Iterator[Fault]:
        try:
            data = framing.load(path)
            data = framing.expand(path, data, self.files.compression) if self.files.compression else data
        except CorruptRecordError as error:
            yield _fault(error)
            return
        faults: list[Fault] = []
        offsets = self._offsets(path, data, faults)
        batch: list[_Record] = []
        for record, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            try:
                batch.append((record, start, framing.payload(data[start:end], path, record, start)))
            except CorruptRecordError as error:
                yield _fault(error)
            if len(batch) == _BATCH:
                yield from self._of_content(path, batch)
                batch = []
        yield from self._of_content(path, batch)
        yield from faults

    def _offsets(self, path: str, data: Any, faults: list[Fault]) -> np.ndarray:
        """Of the records that are there: from the index, which also leads past damaged lengths."""
        shard = self.files.indexed.get(path)
        if shard is not None:
            return _offsets_of_index(path, shard, len(data), faults)
        try:
            return framing.records_of(path, data)
        except CorruptRecordError as error:
            faults.append(_fault(error, "; what follows can't be found without an index"))
            return framing.records_of(path, data[: error.offset])

    def _of_content(self, path: str, batch: list[_Record]) -> Iterator[Fault]:
        self.num_records += len(batch)
        if not batch or not self.features or _problem(self.features, [data for *_, data in batch]) is None:
            return
        check: Callable[[bytes], str] = content_check(self.features)
        for record, offset, data in batch:
            what = check(data) or _problem(self.features, [data])
            if what:
                yield Fault(path, what, record, offset)

    def _of_index(self, path: str) -> Iterator[Fault]:
        """Of a file whose records are whole: whether it's the one that the index is of."""
        shard = self.files.indexed.get(path)
        if shard is None:
            return
        found = framing.scan(path, self.files.compression)
        if found.size_bytes != shard.size_bytes:
            yield Fault(path, f"the file has {found.size_bytes} bytes; its index says {shard.size_bytes}")
        elif not np.array_equal(found.offsets, shard.offsets):
            yield Fault(path, f"the file has {len(found.offsets) - 1} records; its index says {shard.num_records}")
        elif shard.crc32c and found.crc32c != shard.crc32c:
            yield Fault(path, "the file was changed after its index was written; its records are whole")


def verify(patterns: Sequence[str], *, progress: bool = False) -> Verification:
    """Returns what looks through files.

    Args:
        patterns: Of the files.
        progress: Whether to show a bar.

    Raises:
        FileNotFoundError: If nothing matches one of the patterns.
    """
    return Verification(DataFiles.find(patterns), progress)


def _offsets_of_index(path: str, shard: ShardIndex, size: int, faults: list[Fault]) -> np.ndarray:
    offsets = shard.offsets
    whole = int(np.searchsorted(offsets, size, "right"))  # the offsets that are within the file
    if size < offsets[-1]:
        missing = shard.num_records - whole + 1
        what = f"the file ends within it or before it, after {size} bytes; {missing} records are missing"
        faults.append(Fault(path, what, whole - 1, int(offsets[whole - 1])))
    elif size > offsets[-1]:
        what = f"the file goes on behind its last record, to byte {size}"
        faults.append(Fault(path, what, shard.num_records, int(offsets[-1])))
    return offsets[:whole]


def _fault(error: CorruptRecordError, more: str = "") -> Fault:
    return Fault(error.path, error.what + more, error.record, error.offset)


def _problem(features: dict[str, Feature], examples: list[bytes]) -> str | None:
    """Why records can't be parsed together; None if they can."""
    try:
        parse_all(features, examples)
    except (tf.errors.OpError, ValueError) as error:
        return str(getattr(error, "message", error)).splitlines()[0]
    return None
