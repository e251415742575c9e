"""Two network namespaces of this machine joined by a link of limited speed, and a process in each.

    namespace A (10.77.0.1) --- veth, tc tbf in both directions --- namespace B (10.77.0.2)

What crosses the link is counted by the kernel in each namespace's interface. Needs root and iproute2 (`ip`, `tc`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfdist.cluster import die_with_parent

_PREFIX = "tfdist-link"
INTERFACE = "bench0"
ADDRESSES = ("10.77.0.1", "10.77.0.2")
_COMMAND_TIMEOUT_SECONDS = 20


class LinkFailed(RuntimeError):
    """The link can't be made, or a process on it failed or ran out of time."""


@dataclasses.dataclass(frozen=True)
class Link:
    """A link that is up.

    Args:
        namespaces: of the two ends.
    """

    namespaces: tuple[str, str]

    def command(self, end: int, command: Sequence[str]) -> list[str]:
        """The command that runs `command` at one end, on a core of its own, and that ends when this process does."""
        core = sorted(os.sched_getaffinity(0))[end % len(os.sched_getaffinity(0))]
        inside = ["ip", "netns", "exec", self.namespaces[end], "taskset", "-c", str(core), *command]
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
    _check_allowed()
    _remove_stale()
    link = Link((f"{_PREFIX}-{os.getpid()}-a", f"{_PREFIX}-{os.getpid()}-b"))
    before = signal.signal(signal.SIGTERM, _raise_exit)
    try:
        _make(link, megabits_per_second)
        yield link
    finally:
        for namespace in link.namespaces:
            _remove(namespace)
        signal.signal(signal.SIGTERM, before)


def _check_allowed() -> None:
    missing = [tool for tool in ("ip", "tc", "taskset") if shutil.which(tool) is None]
    if missing:
        raise LinkFailed(f"Expected: {' and '.join(missing)} on the PATH. Install iproute2 and util-linux.")
    if os.geteuid() != 0:
        raise LinkFailed(
            "Expected: root, which network namespaces need. Received: user id "
            f"{os.geteuid()}. Run it with sudo, or leave the link out with --only=device,memory."
        )


def _make(link: Link, megabits_per_second: int) -> None:
    a, b = link.namespaces
    _ip("netns", "add", a)
    _ip("netns", "add", b)
    _ip("link", "add", INTERFACE, "netns", a, "type", "veth", "peer", "name", INTERFACE, "netns", b)
    for namespace, address in zip(link.namespaces, ADDRESSES, strict=True):
        _ip("-n", namespace, "address", "add", f"{address}/24", "dev", INTERFACE)
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "link", "set", INTERFACE, "up")
        # A burst of two of the largest packets that the kernel hands over at once (64 KiB).
        limit = ["rate", f"{megabits_per_second}mbit", "burst", "128kb", "latency", "50ms"]
        _call("tc", "-n", namespace, "qdisc", "add", "dev", INTERFACE, "root", "tbf", *limit)


def _remove(namespace: str) -> None:
    # Its interfaces go with it.
    with contextlib.suppress(subprocess.SubprocessError):
        subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, timeout=_COMMAND_TIMEOUT_SECONDS)


def _remove_stale() -> None:
    """Namespaces of a benchmark that was killed and could not clean up."""
    for line in _call("ip", "netns", "list").splitlines():
        name = line.split(" ")[0]
        if name.startswith(f"{_PREFIX}-") and not Path("/proc", name.split("-")[2]).exists():
            _remove(name)


def _ip(*arguments: str) -> None:
    _call("ip", *arguments)


def _call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_SECONDS)
    if done.returncode:
        raise LinkFailed(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


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


def _raise_exit(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)
