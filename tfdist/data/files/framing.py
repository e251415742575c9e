"""The TFRecord file format: where the records of a file lie, and whether they are whole.

A record of n bytes takes n + 16: its length as uint64, that length's masked CRC32C as uint32, the n bytes, and their
masked CRC32C as uint32, all little-endian (tensorflow/core/lib/io/record_writer.h). This is the only file that knows.
"""

from __future__ import annotations

import functools
import gzip
import mmap
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np
import tensorflow as tf

from tfdist.errors import CorruptRecordError

if TYPE_CHECKING:
    Bytes = bytes | mmap.mmap

COMPRESSIONS = ("", "GZIP", "ZLIB")
HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES

_HEADER = struct.Struct("<QI")
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
_CHUNK_BYTES = 1 << 22
_REMEDY = "Restore the file, or read with on_corrupt='skip' to go on without the record."


@dataclass(frozen=True)
class Scan:
    """What one pass over a file found.

    Attributes:
        offsets: first byte of each record and, last, the end of the file; of the uncompressed bytes, int64 [n + 1].
        size_bytes: of the file as it is stored.
        crc32c: of the file as it is stored; 0 where it wasn't asked for.
    """

    offsets: np.ndarray
    size_bytes: int
    crc32c: int


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord files hold it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@functools.lru_cache(1 << 14)
def header(length: int) -> bytes:
    """What stands before a record of this many bytes."""
    return _LENGTH.pack(length) + _CRC.pack(masked_crc32c(_LENGTH.pack(length)))


def scan(path: str, compression: str = "", *, checksum: bool = True, payloads: bool = False) -> Scan:
    """Finds the records of a file from their length fields.

    Args:
        path: Of the file, local or remote.
        compression: "", "GZIP" or "ZLIB".
        checksum: Whether to compute the checksum of the whole file, which reads all of it.
        payloads: Whether to check each record's own checksum too.

    Raises:
        CorruptRecordError: If a length field is broken, the file ends within a record, or it's compressed otherwise.
    """
    stored = load(path)
    try:
        found = records_of(path, stored if not compression else expand(path, stored, compression), payloads)
        return Scan(found, len(stored), _crc32c(stored) if checksum else 0)
    finally:
        if isinstance(stored, mmap.mmap):
            stored.close()


def load(path: str) -> Bytes:
    """All bytes of a file; mapped, not read, if it's local."""
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # nothing in it
        return b""
    except FileNotFoundError:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()


def expand(path: str, stored: Bytes, compression: str) -> bytes:
    """The uncompressed bytes.

    Raises:
        CorruptRecordError: If the bytes are not compressed like this, or end too early.
    """
    try:
        return gzip.decompress(stored) if compression == "GZIP" else zlib.decompress(stored)
    except (OSError, EOFError, zlib.error) as error:
        remedy = "Restore the file."
        if detect(bytes(stored[:HEADER_BYTES])) != compression:
            remedy = f"Name its real compression; its first bytes look like {_named(stored)}."
        raise CorruptRecordError(path, 0, 0, f"the file can't be expanded as {compression} ({error})", remedy) from None


def detect(start: bytes) -> str:
    """Which compression a file has, from its first bytes; none for what is empty or no TFRecord file at all."""
    if len(start) >= HEADER_BYTES and masked_crc32c(start[:8]) == _CRC.unpack_from(start, 8)[0]:
        return ""
    if start[:2] == b"\x1f\x8b":
        return "GZIP"
    if len(start) > 1 and start[0] == 0x78 and (start[0] * 256 + start[1]) % 31 == 0:  # RFC 1950
        return "ZLIB"
    return ""


def compression_of(path: str) -> str:
    """Which compression a file has, from its first bytes."""
    with tf.io.gfile.GFile(path, "rb") as file:
        return detect(file.read(HEADER_BYTES))


def records_of(path: str, data: Bytes, payloads: bool = False) -> np.ndarray:
    """Offsets of the records in uncompressed bytes, and the end.

    Raises:
        CorruptRecordError: At the first record that isn't whole; its `offset` is where the whole ones end.
    """
    offsets, at, size = [0], 0, len(data)
    unpack, crc = _HEADER.unpack_from, google_crc32c.value
    while at < size:
        if at + HEADER_BYTES > size:
            raise _truncated(path, offsets, size)
        length, expected = unpack(data, at)
        value = crc(data[at : at + 8])
        if (((value >> 15) | (value << 17)) + _MASK_DELTA) & 0xFFFFFFFF != expected:
            raise _bad_length(path, offsets, data)
        end = at + length + FRAME_BYTES
        if end > size:
            raise _truncated(path, offsets, size)
        if payloads:
            payload(data[at:end], path, len(offsets) - 1, at)
        offsets.append(end)
        at = end
    return np.asarray(offsets, np.int64)


def payload(frame: bytes, path: str, record: int, offset: int) -> bytes:
    """The bytes of a record, checked.

    Args:
        frame: the record with length and checksums, as it should lie in the file.
        path, record, offset: what to name in an error.

    Raises:
        CorruptRecordError: If it isn't whole.
    """
    length = len(frame) - FRAME_BYTES
    if (
        length < 0
        or _LENGTH.unpack_from(frame)[0] != length
        or masked_crc32c(frame[:8]) != _CRC.unpack_from(frame, 8)[0]
    ):
        raise CorruptRecordError(path, record, offset, "its length field is damaged, or the file was cut", _REMEDY)
    data = frame[HEADER_BYTES:-FOOTER_BYTES]
    if masked_crc32c(data) != _CRC.unpack_from(frame, len(frame) - FOOTER_BYTES)[0]:
        raise CorruptRecordError(path, record, offset, f"its {length} bytes don't have their checksum", _REMEDY)
    return data


def _bad_length(path: str, offsets: list[int], data: Bytes) -> CorruptRecordError:
    what, remedy = "its length field is damaged", "Restore the file."
    if offsets == [0]:
        what = "this is no TFRecord file, or its first length field is damaged"
        if detect(bytes(data[:HEADER_BYTES])):
            what, remedy = "the file is compressed", f"Name its compression, {_named(data)}."
    return CorruptRecordError(path, len(offsets) - 1, offsets[-1], what, remedy)


def _truncated(path: str, offsets: list[int], size: int) -> CorruptRecordError:
    what = f"the file ends within it, after {size} bytes"
    return CorruptRecordError(path, len(offsets) - 1, offsets[-1], what, "Restore the file.")


def _named(data: Bytes) -> str:
    return detect(bytes(data[:HEADER_BYTES])) or "no compression"


def _crc32c(data: Bytes) -> int:
    crc = 0
    for start in range(0, len(data), _CHUNK_BYTES):
        crc = google_crc32c.extend(crc, data[start : start + _CHUNK_BYTES])
    return crc
