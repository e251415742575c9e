"""`tfdist launch` of a parameter-server job whose tasks are killed, one after the other, and whose script fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.helpers.warm_processes import QUIET
from tests.strategies.programs.launched_faults import EXIT_CODE, STEPS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent
FAULTS = ["worker", "ps", "chief", "none"]


class Launched(NamedTuple):
    """What came of a launch."""

    code: int
    said: str
    events: list[dict[str, Any]]
    #: From the last event to the end of the launch.
    end_seconds: float

    def seconds_to(self, what: str, after: str) -> float:
        """From one event to the first other behind it."""
        names = [event["what"] for event in self.events]
        at = names.index(after)
        return self.events[names.index(what, at)]["at"] - self.events[at]["at"]


def launch(folder: Path, faults: list[str], *options: str) -> Launched:
    module = ["-m", "tests.strategies.programs.launched_faults", str(folder), *faults]
    command = [sys.executable, "-m", "tfdist", "launch", *options, *module]
    env = {**os.environ, **QUIET}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)
    ended = time.time()
    path = folder / "events"
    events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return Launched(done.returncode, done.stderr, events, ended - events[-1]["at"] if events else 0.0)


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """In each epoch another task is killed; all three restarts are used."""
    found = launch(tmp_path_factory.mktemp("restarted"), FAULTS, "--workers=2", "--ps=2", "--max_restarts=3")
    for fault in FAULTS[:-1]:
        print(f"{fault} killed: the next epoch's end {found.seconds_to('epoch ends', fault):.1f} s later")
    return found


def test_the_job_goes_on_by_itself_whatever_is_killed(restarted):
    assert restarted.code == 0, restarted.said[-5000:]
    ends = [event for event in restarted.events if event["what"] == "epoch ends"]
    assert [event["epoch"] for event in ends] == [0, 1, 2, 3]
    assert all(event["once"] for event in ends), "each example is reported once an epoch"


def test_only_a_worker_is_started_again_alone(restarted):
    said = restarted.said
    assert "worker/1: killed by SIGKILL; it is started again (restart 1 of 3)" in said
    assert "ps/1 failed first: killed by SIGKILL" in said
    assert "chief/0 failed first: killed by SIGKILL" in said
    assert said.count("all tasks are started again") == 2
    begun = [event["epoch"] for event in restarted.events if event["what"] == "epoch begins"]
    assert begun == [0, 1, 1, 2, 2, 3], "an epoch is made again when all tasks are started again, not for a worker"


def test_training_goes_on_from_the_last_backup(restarted):
    """An epoch that is made again begins with the optimizer as the epoch before left it."""
    ends = {event["epoch"]: event["iterations"] for event in restarted.events if event["what"] == "epoch ends"}
    for event in restarted.events:
        if event["what"] == "epoch begins":
            assert event["iterations"] == (ends[event["epoch"] - 1] if event["epoch"] else 0)
    # The first epoch's executions on the worker that was killed may have been applied twice.
    repeated = ends[0] - STEPS
    assert 0 <= repeated <= 4
    assert [ends[epoch] - repeated for epoch in range(4)] == [STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS]


def test_steps_of_before_the_restart_are_no_repeated_ones(restarted):
    assert "were applied twice" not in restarted.said.rpartition("all tasks are started again")[2]


def test_without_restarts_the_launch_ends_and_another_goes_on(tmp_path):
    """The exit code is the chief's: of a signal, of the script's choice, of an exception."""
    options = ("--workers=1", "--ps=1")
    killed = launch(tmp_path, ["none", "chief", "exit", "raise"], *options)
    assert killed.code == 137
    assert "chief/0 failed first: killed by SIGKILL" in killed.said
    left = launch(tmp_path, ["none", "chief", "exit", "raise"], *options)
    assert (left.code, left.events[0]["epoch"]) == (EXIT_CODE, 1), left.said[-3000:]
    assert left.events[0]["iterations"] == STEPS
    assert f"chief/0 failed first: exit code {EXIT_CODE}" in left.said
    raised = launch(tmp_path, ["none", "none", "none", "raise"], *options)
    assert (raised.code, raised.events[0]["epoch"]) == (1, 2), raised.said[-3000:]
    assert "chief/0 failed first: exit code 1" in raised.said
    assert "ValueError: the script's own mistake" in raised.said
    for ended in (killed, left, raised):
        print(f"code {ended.code}: {ended.end_seconds:.1f} s after the fault")
        assert ended.end_seconds < 60
