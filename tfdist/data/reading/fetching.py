"""Serialized records by their numbers, each checked; broken ones raise, or are left out and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable

import google_crc32c
import numpy as np

from tfdist.data.files import framing
from tfdist.data.files.byte_ranges import Ranges
from tfdist.data.files.shards import Shards
from tfdist.errors import CorruptRecordError, DataError
from tfdist.log import logger

# Of the skipped records, how many are named in the log.
_NAMED = 10

Check = Callable[[bytes], str]


class Skipped:
    """The broken records that reading has left out.

    Args:
        maximum: How many may be left out; with None there must be none.
    """

    def __init__(self, maximum: int | None) -> None:
        self._maximum = maximum
        self._seen: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many different records were left out."""
        return len(self._seen)

    def add(self, error: CorruptRecordError) -> None:
        """Leaves a record out.

        Raises:
            CorruptRecordError: If nothing may be left out.
            DataError: If these are too many.
        """
        if self._maximum is None:
            raise error
        with self._lock:
            key = (error.path, error.record)
            if key in self._seen:
                return
            if len(self._seen) >= self._maximum:
                raise DataError(
                    f"At most {self._maximum} records may be left out. Received: one more, {error.path}: record "
                    f"{error.record} at byte {error.offset}: {error.what}. Restore the files, or raise max_skipped."
                )
            self._seen.add(key)
        if self.count <= _NAMED:
            last = ", more are only counted" if self.count == _NAMED else ""
            logger.warning(
                "input: left out %s: record %d at byte %d: %s (%d so far%s)",
                error.path,
                error.record,
                error.offset,
                error.what,
                self.count,
                last,
            )


class Fetcher:
    """Reads records by number.

    Args:
        shards: The files.
        ranges: Where their bytes come from.
        skipped: What to do with broken records.
    """

    def __init__(self, shards: Shards, ranges: Ranges, skipped: Skipped) -> None:
        self._shards, self._ranges, self._skipped = shards, ranges, skipped

    def fetch(self, ids: np.ndarray, check: Check | None = None) -> tuple[list[bytes], list[bool]]:
        """The records that are whole, in order, and for each number whether it's among them.

        Args:
            ids: Numbers of records.
            check: Says what is wrong with a record's content, or nothing.

        Raises:
            CorruptRecordError: At a broken record, if none may be left out.
            DataError: If a file is gone, or more records are broken than may be left out.
        """
        places = self._shards.locate(ids)
        found, is_whole, crc = [], [True] * len(ids), google_crc32c.value
        for place, (head, data, footer) in enumerate(self._ranges.parts(*places)):
            value = crc(data)
            # As `framing.payload` checks it, but in half the time.
            if (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF == int.from_bytes(
                footer, "little"
            ) and head == framing.header(len(data)):
                problem = check(data) if check else ""
                if not problem:
                    found.append(data)
                    continue
                self._skipped.add(self._error(int(ids[place]), problem))
            else:
                (frame,) = self._ranges.read(*(one[place : place + 1] for one in places))
                self._leave_out(int(ids[place]), frame)
            is_whole[place] = False
        return found, is_whole

    def _leave_out(self, record: int, frame: bytes) -> None:
        path, number, offset = self._shards.name(record)
        try:
            framing.payload(frame, path, number, offset)
        except CorruptRecordError as error:
            self._skipped.add(error)

    def _error(self, record: int, problem: str) -> CorruptRecordError:
        path, number, offset = self._shards.name(record)
        remedy = "Correct `features`, or the file; or read with on_corrupt='skip' to go on without the record."
        return CorruptRecordError(path, number, offset, problem, remedy)
