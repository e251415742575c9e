"""The harness' end of the socket on which a job's processes are asked.

A path in the file system, which processes in other network namespaces see too.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.2


class ControlFailed(RuntimeError):
    """A process is gone or does not answer."""


class Control:
    """Talks with the processes of a job.

    Args:
        path: of the socket.
        check: raises if a process has failed.
    """

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(64)
        self._check = check
        self._streams: dict[int, Any] = {}
        self._others: dict[int, Any] = {}

    def connect(self, indices: set[int], deadline: float) -> None:
        """Wait until these processes are there; others may come, and aren't asked."""
        while indices - self._streams.keys():
            self._wait(self._server, deadline)
            connection, _ = self._server.accept()
            stream = connection.makefile("rwb", buffering=0)
            connection.close()
            index = self._read(stream, deadline)["index"]
            (self._streams if index in indices else self._others)[index] = stream

    def ask(self, request: dict[str, Any]) -> None:
        """Send a request to all processes that answer."""
        for stream in self._streams.values():
            try:
                stream.write(json.dumps(request).encode() + b"\n")
            except OSError as error:
                self._check()
                raise ControlFailed("a process has closed its connection") from error

    def answers(self, deadline: float) -> list[dict[str, Any]]:
        """Of all of them, in their order."""
        return [self._read(self._streams[index], deadline) for index in sorted(self._streams)]

    def close(self) -> None:
        """Processes that are left end then."""
        for stream in (*self._streams.values(), *self._others.values()):
            stream.close()
        self._server.close()

    def _read(self, stream: Any, deadline: float) -> dict[str, Any]:
        self._wait(stream, deadline)
        line = stream.readline()
        if not line:
            # The process is on its way out; what it says is in its log.
            end = time.monotonic() + 5
            while time.monotonic() < end:
                self._check()
                time.sleep(_POLL_SECONDS)
            raise ControlFailed("a process has closed its connection")
        return json.loads(line)

    def _wait(self, source: Any, deadline: float) -> None:
        while not select.select([source], [], [], _POLL_SECONDS)[0]:
            self._check()
            if time.monotonic() > deadline:
                raise ControlFailed("out of time")
