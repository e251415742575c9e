"""A link of limited speed between two network namespaces of this machine, and a process at each end.

    namespace A (10.77.0.1) --- tc tbf in both directions --- namespace B (10.77.0.2)

What crosses the link is counted by the kernel in each namespace's interface. Needs root and iproute2 (`ip`, `tc`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import links
from harness.contenders import Network
from harness.links import INTERFACE, LinkFailed

from tfdist.cluster import die_with_parent

__all__ = ["ADDRESSES", "INTERFACE", "Link", "LinkFailed", "limited_link"]

ADDRESSES = ("10.77.0.1", "10.77.0.2")
_COMMAND_TIMEOUT_SECONDS = 20


@dataclasses.dataclass(frozen=True)
class Link:
    """A link that is up.

    Args:
        ends: network namespaces; None for processes on loopback.
    """

    ends: links.Link | None

    def command(self, end: int, command: Sequence[str]) -> list[str]:
        """The command that runs `command` at one end, on a core of its own, and that ends when this process does."""
        core = sorted(os.sched_getaffinity(0))[end % len(os.sched_getaffinity(0))]
        pinned = ["taskset", "-c", str(core), *command]
        inside = pinned if self.ends is None else self.ends.inside(end, pinned)
        return ["python3", "-I", "-S", str(die_with_parent.__file__), str(os.getpid()), *inside]

    def run(self, commands: Sequence[Sequence[str]], environments: Sequence[dict[str, str]], logs: Path,
            timeout_seconds: float) -> None:  # fmt: skip
        """Run a command at each end and wait for both.

        Raises:
            LinkFailed: one of them failed, or they ran out of time.
        """
        tasks, paths = [], [logs / f"{end}.log" for end in range(len(commands))]
        try:
            for end, (command, environment, path) in enumerate(zip(commands, environments, paths, strict=True)):
                with path.open("wb") as output:
                    options = {"stdout": output, "stderr": subprocess.STDOUT, "start_new_session": True}
                    tasks.append(subprocess.Popen(self.command(end, command), env=environment, **options))
            _wait(tasks, paths, time.monotonic() + timeout_seconds)
        finally:
            for task in tasks:
                _kill(task)


@contextlib.contextmanager
def limited_link(megabits_per_second: int) -> Iterator[Link]:
    """A link that is taken down again whatever happens, SIGTERM and Ctrl-C included.

    Args:
        megabits_per_second: in each direction.

    Raises:
        LinkFailed: not root, or `ip` and `tc` can't do it here.
    """
    with links.limited_link(Network(megabits_per_second)) as ends:
        yield Link(ends)


def _wait(tasks: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path], deadline: float) -> None:
    running = dict(enumerate(tasks))
    while running:
        for end, task in list(running.items()):
            if task.poll() is None:
                continue
            del running[end]
            if task.returncode:
                raise LinkFailed(f"task {end} exited with {task.returncode}:\n{_tail(logs[end])}")
        if time.monotonic() > deadline:
            raise LinkFailed("out of time:\n" + "\n".join(f"task {end}: {_tail(logs[end])}" for end in running))
        time.sleep(0.05)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _kill(task: subprocess.Popen[bytes]) -> None:
    if task.poll() is None:
        os.killpg(task.pid, signal.SIGKILL)
    task.wait(timeout=_COMMAND_TIMEOUT_SECONDS)
