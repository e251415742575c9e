"""Python programs that start in a tenth of a second, since they are forked from a process that has imported TensorFlow.

Importing takes four seconds of a core, and the tests start several hundred programs. Two servers take turns, so that
the tasks of a cluster hash strings differently, as real processes do. TFDIST_COLD_TESTS=1 starts each by itself.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

#: Of all programs that tests start.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONUNBUFFERED": "1"}
SERVERS = 2
#: What may be otherwise than when the servers were started, since modules don't look at it when they are imported.
LATE = (
    "TF_CONFIG",
    "TFDIST_",
    "PYTEST_",
    "COV_",
    "TF2_BEHAVIOR",
    "TPU_ML_PLATFORM",
    "KMP_",
    "GRPC_",
    "HDF5_PLUGIN_PATH",
)
LATE += ("ENABLE_RUNTIME_UPTIME_TELEMETRY",)
_POLL_SECONDS = 0.02


class WarmProcess:
    """A program; what tests use of `subprocess.Popen`."""

    def __init__(self, server: _Server, pid: int) -> None:
        self._server, self.pid = server, pid

    @property
    def returncode(self) -> int | None:
        return self._server.ends.get(self.pid)

    def poll(self) -> int | None:
        self._server.hear()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(["python"], timeout or 0.0)
            time.sleep(_POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Server:
    """A process that forks programs.

    Attributes:
        ends: exit codes by pid, negative ones of signals.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env, self.ends = dict(env), dict[int, int]()
        self._lock = threading.Lock()
        # Messages stay apart in it.
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.helpers.warm_server", str(theirs.fileno())]
            self.process = subprocess.Popen(command, env=self.env, pass_fds=[theirs.fileno()], start_new_session=True)

    def start(self, args: Sequence[str], env: Mapping[str, str], output: IO[bytes]) -> WarmProcess:
        request = json.dumps({"args": list(args), "cwd": os.getcwd(), "env": dict(env)}).encode()
        with self._lock:
            socket.send_fds(self._socket, [request], [output.fileno()])
            while True:
                message = self._receive()
                if "started" in message:
                    self.ends.pop(message["started"], None)
                    return WarmProcess(self, message["started"])

    def hear(self) -> None:
        """Take in what has ended."""
        with self._lock, contextlib.suppress(BlockingIOError):
            while True:
                self._receive(socket.MSG_DONTWAIT)

    def _receive(self, flags: int = 0) -> dict[str, int]:
        text = self._socket.recv(4096, flags)
        if not text:
            raise RuntimeError(f"the server of warm processes has ended with {self.process.wait(10)}")
        message = json.loads(text)
        if "ended" in message:
            self.ends[message["ended"]] = message["code"]
        return message

    def close(self) -> None:
        self._socket.close()
        self.process.wait(10)


_servers: list[_Server] = []
_making = threading.Lock()
#: Before any test has changed it.
_environment = {**os.environ, **QUIET}


def _server(index: int) -> _Server:
    """One of the servers, which are started when the first is asked for."""
    with _making:
        while len(_servers) < SERVERS:
            _servers.append(_Server(_environment))
            atexit.register(_servers[-1].close)
    return _servers[index % SERVERS]


def server_pids() -> set[int]:
    """Of processes that stay until all tests are done."""
    return {server.process.pid for server in _servers}


def start_warm(args: Sequence[str], env: Mapping[str, str], output: IO[bytes], index: int) -> WarmProcess | None:
    """Start `python *args`; None where it must be started by itself.

    Args:
        args: `-m`, a module, and the program's arguments.
        env: the whole environment.
        output: a file for what the program writes.
        index: of the task in its cluster.
    """
    if args[0] != "-m" or os.environ.get("TFDIST_COLD_TESTS") or sys.platform != "linux":
        return None
    server = _server(index)
    changed = {name for name, _ in server.env.items() ^ env.items()}
    if any(not name.startswith(LATE) for name in changed):
        return None
    return server.start(args, env, output)
