"""The network of a worker is cut while `fit` runs: nothing answers, and nothing says that it doesn't."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cluster_runner import QUIET
from tests.strategies.programs.cut_network import PATIENCE_SECONDS
from tests.strategies.programs.parameter_server_faults import ROWS, STEPS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent
#: The chief's side keeps its address on `lo`, so that it has one while the cable is out.
HERE, HERE_LINK, THERE = "10.99.0.1", "10.99.1.1", "10.99.1.2"
DEADLINE_SECONDS = 200.0


def ip(command: str) -> str:
    return subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture(scope="module")
def namespaces() -> Iterator[tuple[str, str, str]]:
    """Two, joined by a cable; and the first one's end of it."""
    if os.geteuid() != 0:
        pytest.skip("only root can cut a network")
    here, there = f"tfdist-{os.getpid()}-here", f"tfdist-{os.getpid()}-there"
    try:
        for name in (here, there):
            ip(f"netns add {name}")
        ip(f"link add here netns {here} type veth peer name there netns {there}")
    except (OSError, subprocess.CalledProcessError) as error:
        remove(here, there)
        pytest.skip(f"no network namespaces here: {error}")
    try:
        for name, end, address in ((here, "here", HERE_LINK), (there, "there", THERE)):
            ip(f"-n {name} link set lo up")
            ip(f"-n {name} address add {address}/24 dev {end}")
            ip(f"-n {name} link set {end} up")
        ip(f"-n {here} address add {HERE}/32 dev lo")
        ip(f"-n {there} route add {HERE}/32 dev there")
        yield here, there, "here"
    finally:
        remove(here, there)


def remove(*names: str) -> None:
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


@pytest.fixture(scope="module")
def results(namespaces: tuple[str, str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    here, there, cable = namespaces
    folder: Path = tmp_path_factory.mktemp("network")
    program = [sys.executable, "-m", "tests.strategies.programs.cut_network", str(folder), there, cable, HERE, THERE]
    env = {**os.environ, **QUIET}
    with (folder / "chief.log").open("wb") as log:
        command = ["ip", "netns", "exec", here, *program]
        chief = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        try:
            code = chief.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            chief.kill()
            chief.wait()
    assert code == 0, (folder / "chief.log").read_text(errors="replace")[-5000:]
    found = pickle.loads((folder / "results.pickle").read_bytes())
    return {**found, "process": {"seconds": time.monotonic() - float((folder / "ended").read_text())}}


@pytest.mark.parametrize("name", ["uncut", "short", "long", "returned", "cut at the end"])
def test_every_example_is_reported_once_and_applied_at_least_once(results, name):
    result = results[name]
    assert result["counts"] == dict.fromkeys(range(ROWS), 1)
    assert result["reported"] == STEPS
    assert result["applied"] >= STEPS


def test_a_worker_out_of_reach_is_not_waited_for(results):
    assert results["long"]["seconds"] < 10 * PATIENCE_SECONDS
    assert results["evaluate while cut"]["seconds"] < 10 * PATIENCE_SECONDS


def test_a_worker_within_reach_again_takes_part_again(results):
    """Also in functions that were made while it was away."""
    assert results["uncut"]["there"] > 0
    assert results["returned"]["there"] > 0
    for name in ("evaluate while cut", "evaluate after"):
        assert results[name]["counts"] == dict.fromkeys(range(ROWS), 1)


def test_the_end_of_the_process_waits_for_nobody(results):
    assert results["process"]["seconds"] < 30
