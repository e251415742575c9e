"""Fails a test that leaves something behind: processes, threads, environment variables, ports.

What a fixture of a wider scope made before the test (a cluster shared by a module) is not the
test's leak. A test that can't help it says so: `@pytest.mark.leaks("ports")`, with a reason beside.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import psutil
import pytest

from tests.helpers.warm_processes import server_pids

T = TypeVar("T")

# How long what is on its way out may take; costs nothing when all is clean.
SETTLE_SECONDS = 5.0
KINDS = ("processes", "threads", "environment", "ports")

# Set by pytest itself, and by TensorFlow and what it loads, when they are imported.
OWN_VARIABLES = (
    *("PYTEST_", "COV_", "TF2_BEHAVIOR", "TF_CPP_", "TPU_ML_PLATFORM", "KMP_", "GRPC_"),
    *("ENABLE_RUNTIME_UPTIME_TELEMETRY", "HDF5_PLUGIN_PATH"),
)
# Pools that live as long as the process: TensorFlow's, absl's, concurrent.futures', tqdm's.
OWN_THREADS = ("ThreadPoolExecutor", "asyncio_", "tf_", "pymp-", "tqdm", "pydevd", "MainThread")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"leaks(*kinds): may leave these behind; kinds: {', '.join(KINDS)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What runs at night is asked for by name, whatever other marks are."""
    if "nightly" not in config.option.markexpr:
        night = [item for item in items if item.get_closest_marker("nightly")]
        items[:] = [item for item in items if item not in night]
        config.hook.pytest_deselected(items=night)


def child_processes() -> set[int]:
    """Ids of living children; a zombie was ended, and is only not yet asked for its status."""
    if not os.path.isdir("/proc/self/task"):  # not Linux; slower
        return {child.pid for child in psutil.Process().children() if is_alive(child.pid)}
    found = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as children:
            found |= {int(pid) for pid in children.read().split()}
    return {pid for pid in found - server_pids() if is_alive(pid)}


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def lasting_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon and not thread.name.startswith(OWN_THREADS)}


def environment() -> set[tuple[str, str]]:
    return {(name, value) for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}


def listening_ports() -> set[int]:
    """Ports on which this process listens; those of children go with the children."""
    found = set()
    for fd in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found |= listening_port_of(fd)
    return found


def listening_port_of(fd: int) -> set[int]:
    with socket.socket(fileno=os.dup(fd)) as copy:
        is_internet = copy.family in (socket.AF_INET, socket.AF_INET6)
        if is_internet and copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return {copy.getsockname()[1]}
    return set()


def settled(look: Callable[[], set[T]], before: set[T]) -> set[T]:
    """What is there that was not before, once it had time to go."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := look() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """One fixture for all kinds, since each would run around each other's."""
    marker = request.node.get_closest_marker("leaks")
    allowed = set(marker.args) if marker else set()
    looks: dict[str, Callable[[], set]] = {
        "processes": child_processes,
        "threads": lasting_threads,
        "ports": listening_ports,
    }
    before = {kind: look() for kind, look in looks.items() if kind not in allowed}
    variables = dict(os.environ)
    seen = environment()
    yield
    left = {kind: settled(looks[kind], there) for kind, there in before.items()}
    left["environment"] = {name for name, _ in seen ^ environment()} if "environment" not in allowed else set()
    if left["environment"]:
        os.environ.clear()
        os.environ.update(variables)
    for pid in left.get("processes", ()):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()  # the next test must not suffer
    said = [f"{kind}: {sorted(map(str, found))}" for kind, found in left.items() if found]
    if said:
        pytest.fail(f"The test left behind {'; '.join(said)}. End, join, restore or close them.")


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """`wait_until(condition, seconds=60)` returns when `condition()` is true, or fails the test."""
    return poll


def poll(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"Waited {seconds} s in vain for {condition}.")
        time.sleep(0.02)
