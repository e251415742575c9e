"""Child processes that can't outlive their parent, however it dies.

Two lines, since each has a hole:

* On Linux the child asks the kernel for SIGKILL at its parent's death (PR_SET_PDEATHSIG). The
  request survives exec. It doesn't reach grandchildren, and "parent" means the *thread* that
  started the child, so it's asked for only from the main thread.
* A watchdog process holds the read end of a pipe whose write end only the parent has. When the
  parent dies, by SIGKILL too, the kernel closes it, and the watchdog kills the process groups that
  it was told about, grandchildren included. Works on every POSIX system.

Each child leads a session of its own, so that a terminal's Ctrl-C reaches it only by way of its
parent, and so that `kill_group` reaches all that it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
# -I -S: these two scripts need nothing but the standard library, and start in 15 ms that way.
_PYTHON = (sys.executable, "-I", "-S")


class Lifeline:
    """Starts children that die with this process. Close it when they have ended.

    Example:
        >>> lifeline = Lifeline()
        >>> child = lifeline.start([sys.executable, "server.py"])
        >>> child.wait(); lifeline.forget(child)
        >>> lifeline.close()
    """

    def __init__(self) -> None:
        read_end, self._write_end = os.pipe()
        self._watchdog = subprocess.Popen(
            [*_PYTHON, str(_HERE / "watchdog.py"), str(os.getpid())],
            stdin=read_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_end)

    def start(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Starts `command` in a session of its own.

        Args:
            command: Program and arguments.
            env: Its whole environment; None inherits this process's.
            **options: For subprocess.Popen: stdin, stdout, stderr, cwd.
        """
        child = subprocess.Popen([*_shim(), *command], env=env, start_new_session=True, **options)
        self._tell("+", child.pid)
        return child

    def forget(self, child: subprocess.Popen[bytes]) -> None:
        """Says that `child` has ended, so that a reused process id is never killed."""
        self._tell("-", child.pid)

    def close(self) -> None:
        """Lets the watchdog go; it kills what was started and not forgotten."""
        os.close(self._write_end)
        self._watchdog.wait()

    def _tell(self, sign: str, pid: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # no watchdog: the kernel's line still holds
            os.write(self._write_end, f"{sign}{pid}\n".encode())


def kill_group(pid: int, signum: int = signal.SIGKILL) -> None:
    """Sends a signal to a child of `Lifeline.start` and to all it started; fine if it's gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _shim() -> list[str]:
    if not sys.platform.startswith("linux"):
        return []
    if threading.current_thread() is not threading.main_thread():
        return []
    return [*_PYTHON, str(_HERE / "die_with_parent.py"), str(os.getpid())]
