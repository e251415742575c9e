"""Connections to workers that are cut off: given up when nothing was acknowledged for a while.

TCP alone keeps a connection for a quarter of an hour when nothing comes back, and TensorFlow waits as long. When it
tells all tasks of a new function it does so with Python's lock held, so no thread of the chief could end that wait: the
kernel can.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable, Iterator

from tfdist.cluster import Address

_OPEN_FILES = "/proc/self/fd"
#: Linux' option; elsewhere connections last as long as TCP likes.
_OPTION = getattr(socket, "TCP_USER_TIMEOUT", None)


def limit_silence(addresses: Iterable[str], seconds: float) -> None:
    """Have this process' connections to the addresses end with an error when data isn't acknowledged for so long."""
    if _OPTION is None:
        return
    for connection in connections_to(addresses):
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, _OPTION, int(seconds * 1000))


def connections_to(addresses: Iterable[str]) -> Iterator[socket.socket]:
    """This process' connections to the addresses, whoever made them; each is to be closed, which leaves it open."""
    peers = {peer for address in addresses for peer in _resolved(Address.parse(address))}
    for name in os.listdir(_OPEN_FILES) if os.path.isdir(_OPEN_FILES) else ():
        connection = _connection(int(name))
        if connection is None:
            continue
        if _peer(connection) in peers:
            yield connection
        else:
            connection.close()


def _connection(file: int) -> socket.socket | None:
    """A second handle of an open file, if it's a connection."""
    with contextlib.suppress(OSError):  # it may be closed by now
        if stat.S_ISSOCK(os.fstat(file).st_mode):
            return socket.socket(fileno=os.dup(file))
    return None


def _peer(connection: socket.socket) -> tuple[str, int] | None:
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # it isn't connected
            return _plain(*connection.getpeername()[:2])
    return None


def _resolved(address: Address) -> set[tuple[str, int]]:
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return {_plain(str(entry[4][0]), address.port) for entry in found}
    return set()


def _plain(host: str, port: int) -> tuple[str, int]:
    ip = ipaddress.ip_address(host.partition("%")[0])
    return str(getattr(ip, "ipv4_mapped", None) or ip), port
