"""A worker is lost while `fit` runs: those that are left end with an error that names it. None waits for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.lost_workers import Survivor, lose
from tests.helpers.networks import HERE, THERE, ip, two_networks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

HEARTBEAT_SECONDS = 10.0


def check(survivors: list[Survivor], says: str) -> None:
    for survivor in survivors:
        print(f"worker {survivor.worker}: {survivor.seconds:.1f} s")
        assert survivor.code == 1, survivor.said[-3000:]
        assert "TaskLostError: Expected: all 3 workers until training ends. Received: " in survivor.said
        assert says in survivor.said.rpartition("TaskLostError")[2], survivor.said[-3000:]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker(tmp_path: Path, victim: int) -> None:
    """The chief, whose process has the service through which TensorFlow's workers know of each other; and another."""
    check(lose(tmp_path, "kill", victim), f"worker {victim} was killed: its process has ended without a word")


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.nightly), 1])
def test_an_exception_on_one_worker(tmp_path: Path, victim: int) -> None:
    check(lose(tmp_path, "fail", victim), f"worker {victim} failed with ValueError: a bad batch")


def test_a_worker_that_leaves_early(tmp_path: Path) -> None:
    check(lose(tmp_path, "leave", 1), "worker 1 has ended, while this worker goes on: all workers must make the same")


def test_a_worker_that_stops_training(tmp_path: Path) -> None:
    """Its process lives, and waits for the others in another collective than they do."""
    check(lose(tmp_path, "stop_training", 1), "worker 1 has come to the end of an epoch after 6 executions, while this")


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_stopped_worker(tmp_path: Path, victim: int) -> None:
    options = {"heartbeat_timeout_seconds": HEARTBEAT_SECONDS}
    lost = lose(tmp_path, "stop", victim, options=options)
    check(lost, f"worker {victim} has said nothing for")


def test_a_killed_worker_between_averagings(tmp_path: Path) -> None:
    """Under local SGD no step asks for the others."""
    options = {"strategy": "LocalSGDStrategy", "sync_every_steps": 1_000_000}
    check(lose(tmp_path, "kill", 1, options=options), "worker 1 was killed")


def test_a_cut_network(tmp_path: Path) -> None:
    """Workers 0 and 2 on one side of the cable, 1 on the other, which can't tell the chief of its end."""
    with two_networks() as (here, there, cable):
        lost = lose(
            tmp_path,
            "wait",
            1,
            options={"heartbeat_timeout_seconds": HEARTBEAT_SECONDS},
            prefix=lambda worker: ["ip", "netns", "exec", there if worker == 1 else here],
            addresses=[f"{HERE}:2222", f"{THERE}:2222", f"{HERE}:2223"],
            do=lambda: ip(f"-n {here} link set {cable} down"),
            is_victim_alive=True,
        )
    check([one for one in lost if one.worker != 1], "worker 1 has said nothing for")
    (cut_off,) = [one for one in lost if one.worker == 1]
    assert cut_off.code != 0 and "has said nothing for" in cut_off.said
