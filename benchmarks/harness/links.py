"""Machines that are network namespaces of this one, joined by a switch through links of limited speed.

    namespace 0 (10.77.0.1) -- veth -- switch (a bridge in a namespace of its own) -- veth -- namespace 1 (10.77.0.2)

`tc tbf` limits both directions of each veth. Needs root and iproute2 (`ip`, `tc`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .contenders import Network

_PREFIX = "tfdist-bench"
INTERFACE = "bench0"
_COMMAND_SECONDS = 20


class LinkFailed(RuntimeError):
    """The link can't be made."""


@dataclass
class Link:
    """A link that is up.

    Args:
        namespaces: of its ends.
    """

    namespaces: tuple[str, ...]
    _ports: int = field(default=0)

    @property
    def addresses(self) -> list[str]:
        """Of its ends."""
        return [f"10.77.0.{end + 1}" for end in range(len(self.namespaces))]

    def inside(self, end: int, command: Sequence[str]) -> list[str]:
        """The command that runs `command` at one end."""
        return ["ip", "netns", "exec", self.namespaces[end], *command]

    def next_ports(self, count: int) -> int:
        """So many numbers that no other job on this link has got; the first."""
        self._ports += count
        return self._ports - count


@contextlib.contextmanager
def limited_link(network: Network) -> Iterator[Link]:
    """A link that is taken down again whatever happens, SIGTERM and Ctrl-C included.

    Raises:
        LinkFailed: not root, or `ip` and `tc` can't do it here.
    """
    check_allowed()
    _remove_stale()
    name = f"{_PREFIX}-{os.getpid()}-{network.megabits_per_second}-{network.ends}"
    link = Link(tuple(f"{name}-{end}" for end in range(network.ends)))
    switch = f"{name}-switch"
    before = signal.signal(signal.SIGTERM, _raise_exit)
    try:
        _make(link, switch, network.megabits_per_second)
        yield link
    finally:
        for namespace in (*link.namespaces, switch):
            _remove(namespace)
        signal.signal(signal.SIGTERM, before)


def check_allowed() -> None:
    """Raise LinkFailed where there can be no links."""
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        raise LinkFailed(f"Expected: {' and '.join(missing)} on the PATH. Received: none. Install iproute2.")
    if os.geteuid() != 0:
        raise LinkFailed(
            f"Expected: root, which network namespaces need. Received: user id {os.geteuid()}. Run it with sudo."
        )


def _make(link: Link, switch: str, megabits_per_second: int) -> None:
    _call("ip", "netns", "add", switch)
    _call("ip", "-n", switch, "link", "add", "bridge0", "type", "bridge")
    _call("ip", "-n", switch, "link", "set", "bridge0", "up")
    for end, (namespace, address) in enumerate(zip(link.namespaces, link.addresses, strict=True)):
        port = f"port{end}"
        _call("ip", "netns", "add", namespace)
        pair = ["type", "veth", "peer", "name", port, "netns", switch]
        _call("ip", "link", "add", INTERFACE, "netns", namespace, *pair)
        _call("ip", "-n", switch, "link", "set", port, "master", "bridge0", "up")
        _call("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", INTERFACE)
        _call("ip", "-n", namespace, "link", "set", "lo", "up")
        _call("ip", "-n", namespace, "link", "set", INTERFACE, "up")
        # A burst of two of the largest packets that the kernel hands over at once (64 KiB).
        limit = ["root", "tbf", "rate", f"{megabits_per_second}mbit", "burst", "128kb", "latency", "50ms"]
        _call("tc", "-n", namespace, "qdisc", "add", "dev", INTERFACE, *limit)
        _call("tc", "-n", switch, "qdisc", "add", "dev", port, *limit)


def _remove(namespace: str) -> None:
    # Its interfaces go with it.
    with contextlib.suppress(subprocess.SubprocessError):
        subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, timeout=_COMMAND_SECONDS)


def _remove_stale() -> None:
    """Namespaces of a benchmark that was killed and could not clean up."""
    for line in _call("ip", "netns", "list").splitlines():
        name = line.split(" ")[0]
        if name.startswith(f"{_PREFIX}-") and not Path("/proc", name.split("-")[2]).exists():
            _remove(name)


def _call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS)
    if done.returncode:
        raise LinkFailed(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def _raise_exit(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)
