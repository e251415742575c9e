"""The index of a TFRecord data set: how many records each shard has, where each begins, and what is in them.

One file for all shards, beside them: an npz archive with `header` (JSON: version, compression, features, and name,
record count, size and CRC32C of each shard) and `lengths` (bytes of each record with its frame, uint32 where they fit).
Offsets are the lengths' running sum. So it takes 4 bytes a record on disk and 8 in memory.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfdist.data.files import framing
from tfdist.errors import DataError

SUFFIX = ".tfdist-index"
_VERSION = 1
# Scanning hops from header to header; on files that aren't cached the threads wait for the disk.
_THREADS = 8


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """One file of a data set.

    Attributes:
        name: Of the file, without its directory.
        size_bytes: Of the file as it is stored.
        crc32c: Of the file as it is stored; 0 where it's unknown.
        offsets: First byte of each record, then the end; of the uncompressed bytes, int64 [num_records + 1].
    """

    name: str
    size_bytes: int
    crc32c: int
    offsets: np.ndarray

    @property
    def num_records(self) -> int:
        """How many records the file has."""
        return len(self.offsets) - 1


@dataclass(frozen=True, eq=False)
class DatasetIndex:
    """All files of a data set.

    Attributes:
        shards: In the order in which they are read, that of their names.
        compression: "", "GZIP" or "ZLIB".
        features: What a record holds, as `features_to_json` writes it; None for files of unknown make.
    """

    shards: tuple[ShardIndex, ...]
    compression: str = ""
    features: dict[str, Any] | None = None

    @property
    def num_records(self) -> int:
        """How many records all files have together."""
        return sum(shard.num_records for shard in self.shards)

    def save(self, path: str) -> None:
        """Writes the index, whole or not at all."""
        lengths = np.concatenate([np.diff(shard.offsets) for shard in self.shards] or [np.zeros(0, np.int64)])
        small = not lengths.size or lengths.max() < 1 << 32
        file = io.BytesIO()
        np.savez(file, header=self._header(), lengths=lengths.astype(np.uint32 if small else np.uint64))
        temporary = f"{path}.{os.getpid()}.tmp"
        with tf.io.gfile.GFile(temporary, "wb") as out:
            out.write(file.getvalue())
        tf.io.gfile.rename(temporary, path, overwrite=True)

    def _header(self) -> np.ndarray:
        shards = [
            {"name": one.name, "records": one.num_records, "size_bytes": one.size_bytes, "crc32c": one.crc32c}
            for one in self.shards
        ]
        header = {"version": _VERSION, "compression": self.compression, "features": self.features, "shards": shards}
        return np.frombuffer(json.dumps(header).encode(), np.uint8)

    @classmethod
    def load(cls, path: str) -> DatasetIndex:
        """Reads an index.

        Raises:
            DataError: If the file is no index, or of a later version.
        """
        try:
            with tf.io.gfile.GFile(path, "rb") as file, np.load(io.BytesIO(file.read())) as arrays:
                header, lengths = json.loads(arrays["header"].tobytes()), arrays["lengths"]
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path}: expected the index of TFRecord files. Received: a file that can't be read as one ({error}). "
                "Delete it, and write it again with: tfdist data index PATTERN"
            ) from None
        if header["version"] > _VERSION:
            raise DataError(
                f"{path}: expected an index of version {_VERSION} or before. Received: version={header['version']}. "
                "Update tfdist, or write the index again with: tfdist data index PATTERN"
            )
        return cls(tuple(_shards(header["shards"], lengths)), header["compression"], header["features"])


def _shards(described: list[dict[str, Any]], lengths: np.ndarray) -> Iterator[ShardIndex]:
    at = 0
    for one in described:
        offsets = np.zeros(one["records"] + 1, np.int64)
        np.cumsum(lengths[at : at + one["records"]], out=offsets[1:])
        at += one["records"]
        yield ShardIndex(one["name"], one["size_bytes"], one["crc32c"], offsets)


def index_path(pattern: str) -> str:
    """Where the index of the files of a pattern lies: `data/train-*.tfrecord` -> `data/train.tfdist-index`."""
    directory, name = os.path.split(pattern)
    prefix = name.split("*")[0].removesuffix(".tfrecord").rstrip("-_.") or "records"
    return os.path.join(directory, prefix + SUFFIX)


def make_index(
    paths: Sequence[str], *, compression: str = "", features: dict[str, Any] | None = None, progress: bool = False
) -> DatasetIndex:
    """Reads all files and says where their records are.

    Args:
        paths: The files.
        compression: Of all of them.
        features: What the records hold, as `features_to_json` writes it.
        progress: Whether to show a bar.

    Raises:
        CorruptRecordError: If a file can't be read to its end.
    """
    shards = tuple(scan_shards(paths, compression, checksum=True, progress=progress))
    return DatasetIndex(shards, compression, features)


def scan_shards(
    paths: Sequence[str], compression: str, *, checksum: bool, progress: bool = False
) -> Iterable[ShardIndex]:
    """Scans several files at a time, in order.

    Raises:
        CorruptRecordError: If a file can't be read to its end.
    """

    def one(path: str) -> ShardIndex:
        found = framing.scan(path, compression, checksum=checksum)
        return ShardIndex(os.path.basename(path), found.size_bytes, found.crc32c, found.offsets)

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from tqdm(pool.map(one, paths), "index", len(paths), unit="file", disable=not progress, leave=False)


def find_indexes(paths: Iterable[str]) -> dict[str, tuple[DatasetIndex, ShardIndex]]:
    """The part of an index that describes each of these files, as far as there are indexes beside them."""
    wanted = set(paths)
    found: dict[str, tuple[DatasetIndex, ShardIndex]] = {}
    for directory in sorted({os.path.dirname(path) for path in wanted}):
        for path in sorted(tf.io.gfile.glob(os.path.join(directory, "*" + SUFFIX))):
            index = DatasetIndex.load(path)
            for shard in index.shards:
                shard_path = os.path.join(directory, shard.name)
                if shard_path in wanted:
                    found[shard_path] = index, shard
    return found
