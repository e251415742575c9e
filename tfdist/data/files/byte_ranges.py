"""Bytes of records, from files as they lie, from compressed files, from memory, or from local copies of remote files.

`Ranges` is what they have in common: `read` many (file, start, end) at once. Files are read with pread and not mapped:
a file that is cut while it's mapped ends the process.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfdist.data.files import framing
from tfdist.data.files.file_stamp import stamp_of
from tfdist.errors import DataError

# Below the usual limit of 1,024 open files of a process, which holds other things too.
_MAX_OPEN_FILES = 256
_FOOTER_BYTES = 4


class Ranges(Protocol):
    """Where bytes of records come from."""

    def read(self, shards: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[bytes]:
        """Bytes `start` to `end` of each file; fewer where the file ends before."""

    def parts(self, shards: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Iterator[Parts]:
        """As `read`, of whole frames, each cut into header, data and footer."""


# Of a record's frame: what stands before the data, the data, what stands behind.
Parts = tuple[bytes, bytes, bytes]
# Bytes, and where in them a range begins and ends.
Cut = tuple[bytes, int, int]


def _parts(cuts: Iterable[Cut]) -> Iterator[Parts]:
    """Data is copied once: that is most of what reading large records costs."""
    for data, a, b in cuts:
        first, behind = min(a + framing.HEADER_BYTES, b), max(b - _FOOTER_BYTES, a)
        yield data[a:first], data[first:behind], data[behind:b]


def _parts_of(frames: list[bytes]) -> Iterator[Parts]:
    return _parts((frame, 0, len(frame)) for frame in frames)


class Files:
    """Uncompressed files, local or remote; the descriptors of those used last stay open."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._open: OrderedDict[int, _File] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, shards: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[bytes]:
        """Reads each run of ranges that touch at once."""
        return [run[a:b] for run, a, b in self._cuts(shards, starts, ends)]

    def parts(self, shards: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Iterator[Parts]:
        """See `Ranges.parts`."""
        if (starts[1:] != ends[:-1]).any():  # single records; there is less to gain
            return _parts_of(self.read(shards, starts, ends))
        return _parts(self._cuts(shards, starts, ends))

    def _cuts(self, shards: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Iterator[Cut]:
        breaks = np.flatnonzero((starts[1:] != ends[:-1]) | (shards[1:] != shards[:-1])) + 1
        for first, behind in zip([0, *breaks.tolist()], [*breaks.tolist(), len(shards)], strict=True):
            if first == behind:
                continue
            base = int(starts[first])
            run = self._file(int(shards[first])).read(base, int(ends[behind - 1]) - base)
            for a, b in zip((starts[first:behind] - base).tolist(), (ends[first:behind] - base).tolist(), strict=True):
                yield run, a, b

    def _file(self, shard: int) -> _File:
        with self._lock:
            if shard not in self._open:
                self._open[shard] = _File(self._paths[shard])
                if len(self._open) > _MAX_OPEN_FILES:
                    self._open.popitem(last=False)  # closed when the last reader lets go of it
            self._open.move_to_end(shard)
            return self._open[shard]


class _File:
    """One open file."""

    def __init__(self, path: str) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            if not tf.io.gfile.exists(path):
                raise DataError(f"{path}: the file is gone. Restore it.") from None
            self._remote, self._lock = tf.io.gfile.GFile(path, "rb"), threading.Lock()

    def read(self, start: int, size: int) -> bytes:
        if self._descriptor is None:
            with self._lock:
                self._remote.seek(start)
                return self._remote.read(size)
        # A single call returns at most 2 GiB.
        parts = [os.pread(self._descriptor, size, start)]
        while parts[-1] and (missing := size - sum(map(len, parts))):
            parts.append(os.pread(self._descriptor, missing, start + size - missing))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


class Expanded:
    """Compressed files; every range asked for expands its whole file, so it stands behind `Blocks`."""

    def __init__(self, paths: Sequence[str], compression: str) -> None:
        self._paths, self._compression = paths, compression

    def read(self, shards: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[bytes]:
        """Expands a file for each range."""
        found = []
        for shard, start, end in zip(shards.tolist(), starts.tolist(), ends.tolist(), strict=True):
            path = self._paths[shard]
            found.append(framing.expand(path, framing.load(path), self._compression)[start:end])
        return found

    def parts(self, shards: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Iterator[Parts]:
        """See `Ranges.parts`."""
        return _parts_of(self.read(shards, starts, ends))


class Blocks:
    """Ranges out of blocks of bytes that are read as a whole; those used last are kept in memory.

    Args:
        source: What the blocks are read from.
        shards, starts, ends: Of each block; by file and start.
        keep: How many blocks to keep; None is all.
    """

    def __init__(
        self, source: Ranges, shards: np.ndarray, starts: np.ndarray, ends: np.ndarray, keep: int | None
    ) -> None:
        self._source, self._keep = source, keep
        self._shards, self._starts, self._ends = shards, starts, ends
        self._first_block = np.searchsorted(shards, np.arange(int(shards.max(initial=-1)) + 2))
        self._kept: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, shards: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[bytes]:
        """Ranges must not go beyond a block."""
        return [block[a:b] for block, a, b in self._cuts(shards, starts, ends)]

    def parts(self, shards: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Iterator[Parts]:
        """See `Ranges.parts`."""
        return _parts_of(self.read(shards, starts, ends))

    def _cuts(self, shards: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Iterator[Cut]:
        """The block of each range, and where it lies in there."""
        numbers = self._numbers(shards, starts)
        blocks = {number: self._block(number) for number in np.unique(numbers).tolist()}
        base = self._starts[numbers]
        cuts = zip(numbers.tolist(), (starts - base).tolist(), (ends - base).tolist(), strict=True)
        return ((blocks[number], a, b) for number, a, b in cuts)

    def _numbers(self, shards: np.ndarray, starts: np.ndarray) -> np.ndarray:
        numbers = np.empty(len(shards), np.int64)
        for shard in np.unique(shards).tolist():
            first, behind = self._first_block[shard : shard + 2]
            here = shards == shard
            numbers[here] = first + np.searchsorted(self._starts[first:behind], starts[here], "right") - 1
        return numbers

    def _block(self, number: int) -> bytes:
        with self._lock:
            future = self._kept.get(number)
            is_mine = future is None
            if future is None:
                future = self._kept[number] = Future()
            self._kept.move_to_end(number)
            while self._keep is not None and len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        if is_mine:
            self._read_block(number, future)
        return future.result()

    def _read_block(self, number: int, future: Future[bytes]) -> None:
        at = slice(number, number + 1)
        try:
            future.set_result(self._source.read(self._shards[at], self._starts[at], self._ends[at])[0])
        except BaseException as error:
            with self._lock:
                self._kept.pop(number, None)  # the next one who asks tries again
            future.set_exception(error)


def local_copies(paths: Iterable[str], compression: str, directory: str) -> Sequence[str]:
    """Paths of local, uncompressed copies, each made when first asked for and kept for later runs.

    A copy's name depends on path, size and time of the original, so a changed file is copied again. Several processes
    may share the directory; a copy appears whole or not at all.
    """
    os.makedirs(directory, exist_ok=True)
    return _Copies([_Copy(path, compression, directory) for path in paths])


class _Copies(Sequence[str]):
    def __init__(self, copies: list[_Copy]) -> None:
        self._copies = copies

    def __len__(self) -> int:
        return len(self._copies)

    def __getitem__(self, index: Any) -> Any:
        return self._copies[index].path()


class _Copy:
    def __init__(self, original: str, compression: str, directory: str) -> None:
        self._original, self._compression, self._directory = original, compression, directory
        self._lock = threading.Lock()
        self._made: str | None = None

    def path(self) -> str:
        """The copy's path; makes it first."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> str:
        size, changed = stamp_of(self._original)
        key = f"{self._original}\n{size}\n{changed}\n{self._compression}"
        name = hashlib.sha256(key.encode()).hexdigest()[:16] + "-" + os.path.basename(self._original)
        target = os.path.join(self._directory, name)
        if not os.path.exists(target):
            _atomically(target, self._write)
        return target

    def _write(self, path: str) -> None:
        if self._compression:
            with open(path, "wb") as file:
                file.write(framing.expand(self._original, framing.load(self._original), self._compression))
            return
        with tf.io.gfile.GFile(self._original, "rb") as original, open(path, "wb") as file:
            shutil.copyfileobj(original, file, 1 << 22)


def _atomically(target: str, write: Callable[[str], None]) -> None:
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".copy-", dir=os.path.dirname(target))
        os.close(descriptor)
        write(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(
            f"The cache must have room for a copy of each file. Received: cache={os.path.dirname(target)!r}, {error}. "
            "Free some space, or use another directory."
        ) from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
