"""Two network namespaces and a cable between them, which a test may pull out."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

#: The first side keeps its address on `lo`, so that it has one while the cable is out.
HERE, _HERE_LINK, THERE = "10.99.0.1", "10.99.1.1", "10.99.1.2"


def ip(command: str) -> str:
    """Runs an `ip` command and returns what it prints."""
    return subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True, timeout=30).stdout


@contextlib.contextmanager
def two_networks() -> Iterator[tuple[str, str, str]]:
    """Gives their names, and the name of the first one's end of the cable; skips the test where that can't be had."""
    if os.geteuid() != 0:
        pytest.skip("only root can cut a network")
    here, there = f"tfdist-{os.getpid()}-here", f"tfdist-{os.getpid()}-there"
    try:
        for name in (here, there):
            ip(f"netns add {name}")
        ip(f"link add here netns {here} type veth peer name there netns {there}")
    except (OSError, subprocess.CalledProcessError) as error:
        _remove(here, there)
        pytest.skip(f"no network namespaces here: {error}")
    try:
        for name, end, address in ((here, "here", _HERE_LINK), (there, "there", THERE)):
            ip(f"-n {name} link set lo up")
            ip(f"-n {name} address add {address}/24 dev {end}")
            ip(f"-n {name} link set {end} up")
        ip(f"-n {here} address add {HERE}/32 dev lo")
        ip(f"-n {there} route add {HERE}/32 dev there")
        yield here, there, "here"
    finally:
        _remove(here, there)


def _remove(*names: str) -> None:
    for name in names:
        with contextlib.suppress(subprocess.CalledProcessError, OSError):
            pids = [int(pid) for pid in ip(f"netns pids {name}").split()]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 10
            while ip(f"netns pids {name}") and time.monotonic() < deadline:
                time.sleep(0.1)
            ip(f"netns del {name}")
