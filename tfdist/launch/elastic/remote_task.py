"""A script: runs a task on the machine where it's started, for a driver on another one.

    python -I -S remote_task.py < PIPE

The first line on the pipe is JSON: the folder to run in ("cwd"), variables ("env"), program and arguments ("command"),
and how the task's last step comes back, on stderr behind "step_mark", from the file that the variable "step_variable"
names to the task. Each line after it is the number of a signal for the task and all that it started. End of file means
that the driver is gone: the task is killed. The exit code is the task's, 128 + N if signal N ended it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> int:
    """Returns the task's exit code."""
    first, unread = _read_line()
    if not first:
        return 1  # the driver has gone again
    order = json.loads(first)
    with tempfile.TemporaryDirectory(prefix="tfdist-task-", ignore_cleanup_errors=True) as folder:
        steps = Path(folder, "step")
        code = _run(order, {**os.environ, **order["env"], order["step_variable"]: str(steps)}, unread)
        if steps.exists():
            print(f"{order['step_mark']}{steps.read_text()}", file=sys.stderr, flush=True)
    return code


def _run(order: dict[str, Any], env: dict[str, str], unread: bytes) -> int:
    try:
        os.chdir(order["cwd"])
        task = subprocess.Popen(
            order["command"],
            env=env,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    except OSError as error:
        print(f"Can't start the task in {order['cwd']!r}: {error}", file=sys.stderr, flush=True)
        return 127
    ended, ends = os.pipe()
    threading.Thread(target=_close_after, args=(task, ends), daemon=True).start()
    _obey(task.pid, ended, unread)
    code = task.wait()
    _kill(task.pid, signal.SIGKILL)  # what it left running
    return 128 - code if code < 0 else code


def _close_after(task: subprocess.Popen[bytes], fd: int) -> None:
    task.wait()
    os.close(fd)


def _read_line() -> tuple[bytes, bytes]:
    """The first line, and what came with it; an empty line if there's none."""
    received = b""
    while b"\n" not in received:
        more = os.read(0, 65536)
        if not more:
            return b"", b""
        received += more
    line, _, rest = received.partition(b"\n")
    return line, rest


def _obey(pid: int, ended: int, unread: bytes) -> None:
    """Sends the signals that come in until the task has ended."""
    while True:
        *lines, unread = unread.split(b"\n")
        for line in lines:
            _kill(pid, int(line))
        ready, _, _ = select.select([0, ended], [], [])
        if ended in ready:
            return
        received = os.read(0, 4096)
        if not received:
            _kill(pid, signal.SIGKILL)
            return
        unread += received


def _kill(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _die_with_parent() -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


if __name__ == "__main__":
    # The end of a terminal or of a connection is told by the pipe. No SIG_IGN: the task would inherit it.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, lambda *_: None)
    sys.exit(main())
