"""One connection to another worker: lines of JSON, without ever waiting."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from typing import Any

#: More than this unsent means that the other side doesn't read, as a stopped process does; beats are left out then.
_MOST_UNSENT_BYTES = 1 << 16
#: A line is a beat or a stack of some dozens of threads. What is longer was not sent by a worker.
_MOST_LINE_BYTES = 1 << 20
_READ_BYTES = 1 << 16


class Connection:
    """Messages over a connected socket.

    Args:
        connected: the socket; the connection closes it.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._unread, self._unsent = bytearray(), bytearray()

    def fileno(self) -> int:
        """For a selector; -1 once closed."""
        return self._socket.fileno()

    def send(self, message: dict[str, Any], *, may_drop: bool = False) -> None:
        """Send a message, as far as the system takes it now; the rest follows with the next.

        Args:
            message: what JSON can hold.
            may_drop: leave it out if the other side doesn't read.
        """
        if may_drop and len(self._unsent) > _MOST_UNSENT_BYTES:
            return
        self._unsent += json.dumps(message).encode() + b"\n"
        self._send_some()

    def flush(self, seconds: float) -> None:
        """Send what is unsent; returns when the system has taken it, the other side has gone, or the time is up."""
        deadline = time.monotonic() + seconds
        while self._send_some() and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._socket], [], left)

    def _send_some(self) -> bool:
        """Whether the system will take more later."""
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return True
        except OSError:  # who has gone is noticed where it is read
            return False
        return False

    def receive(self) -> tuple[list[dict[str, Any]], bool]:
        """What has come, and whether more may come.

        Raises:
            ValueError: this is not what workers send.
        """
        is_open = True
        try:
            while is_open:
                received = self._socket.recv(_READ_BYTES)
                self._unread += received
                is_open = bool(received)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            is_open = False
        *lines, rest = bytes(self._unread).split(b"\n")
        self._unread = bytearray(rest)
        messages = [json.loads(line) for line in lines]
        if len(rest) > _MOST_LINE_BYTES or not all(isinstance(message, dict) for message in messages):
            raise ValueError("Expected: lines of JSON objects, as workers send them.")
        return messages, is_open

    def finish(self) -> None:
        """Send no more; the other side reads what was sent, and hangs up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Hang up. If something is unread then, what was sent last may be lost."""
        with contextlib.suppress(OSError):
            self._socket.close()
