"""One running task: its process, what it printed, how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tfdist.cluster.lifeline import Lifeline, kill_group
from tfdist.cluster.progress import TrainingStep, parse_progress
from tfdist.launch.output.console import Console
from tfdist.launch.output.lines import Line, LineCutter
from tfdist.launch.output.noise import is_noise
from tfdist.launch.output.tracebacks import TracebackHold

_TAIL_LINES = 200
_LAST_LINES = 20
_READ_BYTES = 65536
# What a remote shell ends with: 128 + N if signal N ended the task, this if it failed itself.
_SIGNALLED, _SHELL_FAILED = 128, 255
#: What stands on stderr before the last step of a task on another machine, when it has ended.
STEP_MARK = "tfdist-step: "


@dataclass(frozen=True)
class TaskSpec:
    """What to start.

    Args:
        name: "worker/1".
        command: Program and arguments.
        env: The whole environment.
        opening: For a task on another machine: what to write to the standard input of `command`, which stays open
            for the numbers of signals, a line each (see `tfdist.launch.elastic.remote`). None for a task here.
        fds: Open files that it inherits under the same numbers.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    opening: bytes | None = None
    fds: tuple[int, ...] = ()

    @property
    def is_remote(self) -> bool:
        """Whether the task runs on another machine."""
        return self.opening is not None


@dataclass
class Ending:
    """How a task ended.

    Args:
        code: Exit status; -N for death by signal N, as in subprocess.
        at: When, on the clock of time.monotonic.
        failed_at: When it failed: its traceback began before the process was gone.
        words: Its traceback, or the last that it printed to stderr.
        stopped_at: When the supervisor began to end it; None if it ended by itself.
        log_path: The file that holds all that it printed.
        step: The last that a task on another machine noted; None if it said none, and for a task here.
    """

    code: int
    at: float
    failed_at: float
    words: list[str] = field(default_factory=list)
    stopped_at: float | None = None
    log_path: Path | None = None
    step: TrainingStep | None = None


class TaskProcess:
    """Starts a task, shows its output, and says how it ended.

    Args:
        spec: What to start.
        lifeline: Starts the process, so that it dies with this one.
        console: Where its lines go.
        log_path: File for all that it prints, unchanged; None for no file.
        verbose: Show TensorFlow's messages and tracebacks as they come.
    """

    def __init__(
        self,
        spec: TaskSpec,
        lifeline: Lifeline,
        console: Console,
        *,
        log_path: Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.spec = spec
        self.ending: Ending | None = None
        self._stopped_at: float | None = None
        self._step: TrainingStep | None = None
        self._lifeline, self._console, self._verbose = lifeline, console, verbose
        self._log_path = log_path
        self._log: BinaryIO | None = open(log_path, "wb", buffering=0) if log_path else None  # noqa: SIM115
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._hold = TracebackHold()
        self._process = lifeline.start(
            spec.command,
            env=spec.env,
            stdin=subprocess.PIPE if spec.is_remote else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=spec.fds,
        )
        out, err = self._process.stdout, self._process.stderr
        self._cutters = {out.fileno(): LineCutter(), err.fileno(): LineCutter()}  # type: ignore[union-attr]
        self._err_fd = err.fileno()  # type: ignore[union-attr]
        for fd in self._cutters:
            os.set_blocking(fd, False)
        self._tell(spec.opening or b"")
        self.exit_fd = _open_pidfd(self._process.pid)
        """Becomes readable when the process ends; None where the system has no such thing."""

    @property
    def name(self) -> str:
        """The task's name, "worker/1"."""
        return self.spec.name

    @property
    def pid(self) -> int:
        """The process id, which is also the id of the task's process group."""
        return self._process.pid

    @property
    def fds(self) -> tuple[int, ...]:
        """The pipes to watch for output."""
        return tuple(self._cutters)

    def read(self, fd: int) -> bool:
        """Takes what a pipe has; returns whether more may come."""
        try:
            received = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return True
        self._take(fd, received)
        return bool(received)

    def tick(self, now: float) -> None:
        """Shows a traceback that turned out not to be fatal."""
        if self._hold.is_stale(now):
            self._release()

    def signal(self, signum: int) -> None:
        """Sends a signal to the task and to all that it started."""
        if self.ending is None and not self.has_exited():
            self._stopped_at = self._stopped_at or time.monotonic()
            if self.spec.is_remote:
                self._tell(b"%d\n" % signum)
            if not self.spec.is_remote or signum == signal.SIGKILL:
                kill_group(self.pid, signum)

    def _tell(self, words: bytes) -> None:
        if words and self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # the remote shell has ended; its exit code says why
                self._process.stdin.write(words)
                self._process.stdin.flush()

    def has_exited(self) -> bool:
        """Whether the process has ended; leaves it unreaped, so that its id isn't used again."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self.ending is None and os.waitid(os.P_PID, self.pid, options) is not None

    def reap(self) -> Ending:
        """Takes the rest of the output, kills what the task left running, returns the ending."""
        kill_group(self.pid)
        for fd in self._cutters:
            self._drain(fd)
        code = self._process.wait()
        if self.spec.is_remote and _SIGNALLED < code < _SHELL_FAILED:
            code = _SIGNALLED - code
        self._lifeline.forget(self._process)
        now = time.monotonic()
        failed_at = now if self._hold.began_at is None else self._hold.began_at
        self.ending = Ending(code, now, failed_at, self._words(), self._stopped_at, self._log_path, self._step)
        if code == 0:
            self._release()
        self._close()
        return self.ending

    @property
    def seems_to_die(self) -> bool:
        """Whether a traceback was its last sign of life."""
        return self._hold.began_at is not None

    def show_held(self) -> None:
        """Shows the traceback that was kept for the report: there is going to be none on this task."""
        self._release()

    def _drain(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):  # a grandchild got away with the pipe
            while received := os.read(fd, _READ_BYTES):
                self._take(fd, received)
        for line in self._cutters[fd].finish():
            self._show(line, fd == self._err_fd)

    def _take(self, fd: int, received: bytes) -> None:
        if self._log:
            self._log.write(received)
        for line in self._cutters[fd].feed(received):
            self._show(line, fd == self._err_fd)

    def _show(self, line: Line, is_error: bool) -> None:
        if not line.is_complete:
            self._console.bar(self.name, line.text)
            return
        if is_error:
            self._take_error(line.text)
            return
        self._release()
        self._console.line(self.name, line.text)

    def _take_error(self, text: str) -> None:
        if self.spec.is_remote and STEP_MARK in text:
            # Behind what the task has left of a line.
            text, _, step = text.partition(STEP_MARK)
            self._step = parse_progress(step)
            if not text:
                return
        noise = is_noise(text)
        if not noise:
            self._tail.append(text)
        if self._verbose or (not noise and not self._hold.take(text, time.monotonic())):
            self._console.line(self.name, text, is_error=True)

    def _release(self) -> None:
        for text in self._hold.release():
            self._console.line(self.name, text, is_error=True)

    def _words(self) -> list[str]:
        said = self._hold.lines or list(self._tail)
        starts = [i for i, line in enumerate(said) if line.startswith("Traceback (most recent")]
        if starts:
            # An exception that another one caused begins with that one's traceback.
            return said[starts[0] if self._hold.lines else starts[-1] :]
        return said if self._hold.lines else said[-_LAST_LINES:]

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr, self._log):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        if self.exit_fd is not None:
            os.close(self.exit_fd)


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or older than 5.3
        return None
