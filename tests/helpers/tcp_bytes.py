"""How many bytes a process has sent and received over TCP, from the kernel's own count for each of its connections.

Asked over netlink's sock_diag, which needs no rights and no program. An interface's counters would also count what all
other processes of the machine send, and a network namespace of one's own needs rights.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_SOCK_DIAG, _BY_FAMILY, _DUMP = 4, 20, 0x301
_DONE, _ERROR = 3, 2
_INFO, _ESTABLISHED = 2, 1
_HEADER, _MESSAGE = struct.Struct("=IHHII"), 72
_INODE_AT = 68
_ACKED_AND_RECEIVED_AT = 120  # in `struct tcp_info`


class Bytes(NamedTuple):
    """Both directions of a process."""

    sent: int
    received: int


def tcp_bytes(pid: int) -> Bytes:
    """Of the connections that a process has open."""
    own = _sockets_of(pid)
    counts = [count for inode, count in _connections() if inode in own]
    return Bytes(sum(one.sent for one in counts), sum(one.received for one in counts))


def _sockets_of(pid: int) -> set[int]:
    folder, found = f"/proc/{pid}/fd", set()
    for fd in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{fd}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def _connections() -> Iterator[tuple[int, Bytes]]:
    """Inode and count of all that are established."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as asked:
            asked.settimeout(10)
            query = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 1 << _ESTABLISHED)
            asked.send(_HEADER.pack(_HEADER.size + len(query), _BY_FAMILY, _DUMP, 1, 0) + query)
            yield from _answers(asked)


def _answers(asked: socket.socket) -> Iterator[tuple[int, Bytes]]:
    while True:
        data = memoryview(asked.recv(1 << 20))
        while data:
            size, kind, *_ = _HEADER.unpack_from(data)
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise OSError("the kernel does not list TCP connections")
            yield from _count(data[_HEADER.size : size])
            data = data[_aligned(size) :]


def _count(message: memoryview) -> Iterator[tuple[int, Bytes]]:
    (inode,) = struct.unpack_from("=I", message, _INODE_AT)
    attributes = message[_MESSAGE:]
    while attributes:
        size, kind = struct.unpack_from("=HH", attributes)
        if kind == _INFO:
            yield inode, Bytes(*struct.unpack_from("=QQ", attributes, 4 + _ACKED_AND_RECEIVED_AT))
        attributes = attributes[_aligned(size) :]


def _aligned(size: int) -> int:
    return (size + 3) & ~3
