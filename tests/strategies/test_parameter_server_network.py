"""The network of a worker is cut while `fit` runs: nothing answers, and nothing says that it doesn't."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.networks import HERE, THERE, two_networks
from tests.helpers.warm_processes import QUIET
from tests.strategies.programs.cut_network import PATIENCE_SECONDS
from tests.strategies.programs.parameter_server_faults import ROWS, STEPS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent
DEADLINE_SECONDS = 200.0


@pytest.fixture(scope="module")
def namespaces() -> Iterator[tuple[str, str, str]]:
    with two_networks() as networks:
        yield networks


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
