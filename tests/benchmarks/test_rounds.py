"""Interleaving, failures and processes, with real processes that need no library."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.contenders import Place
from benchmarks.harness.pinning import one_core_each
from benchmarks.harness.requirements import Pythons
from benchmarks.harness.rounds import JobPool, measure, order
from benchmarks.harness.samples import Samples
from tests.benchmarks.counting_cases import benchmark, case, contender

pytestmark = pytest.mark.unit


def run(cases: list[Any], rounds: int, **settings: Any) -> tuple[Samples, list[str]]:
    said: list[str] = []
    with JobPool(Pythons()) as jobs:
        return measure(benchmark(cases, **settings), cases, rounds, jobs, said.append), said


def test_each_round_begins_with_another_case():
    assert [list(order(3, number)) for number in range(4)] == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]


def test_contenders_take_turns_in_the_same_processes(tmp_path):
    log = tmp_path / "log"
    a, b = (contender(name, log=str(log)) for name in "ab")
    samples, said = run([case(a, "small", 2), case(a, "large", 3), case(b, "small", 5)], 2)
    assert log.read_text().split("\n")[:-1] == ["a 2", "a 3", "b 5", "a 3", "b 5", "a 2"]
    assert samples.of("a", "large", "seconds") == {0: 3.0, 1: 3.0}
    # Both settings of a, in both rounds, are the same process; b is another.
    pids = {*samples.of("a", "small", "pid").values(), *samples.of("a", "large", "pid").values()}
    assert len(pids) == 1 and not pids & set(samples.of("b", "small", "pid").values())
    assert said[0] == "round 1 of 2: a, small: seconds 2e+03 ms"


def test_a_fresh_benchmark_starts_processes_for_each_measurement():
    samples, _ = run([case(contender("a"))], 3, is_fresh=True)
    assert len(set(samples.of("a", "1", "pid").values())) == 3


@pytest.mark.parametrize(
    "fault, message",
    [
        ({"fails_at": 2}, "ValueError: the second time is too much"),
        ({"fails_at_start": True}, "RuntimeError: no library here"),
    ],
)
def test_one_that_fails_is_shown_and_others_go_on(fault, message):
    samples, said = run([case(contender("bad", **fault)), case(contender("a"))], 3)
    assert list(samples.failures) == [("bad", "1")]
    assert message in samples.failures["bad", "1"]
    assert len(samples.of("a", "1", "seconds")) == 3
    # What was measured before stays, and it isn't asked again.
    assert len(samples.of("bad", "1", "seconds")) == fault.get("fails_at", 1) - 1
    assert len([line for line in said if line.startswith("failed: bad, 1: bad: process 0 ended")]) == 1


def test_one_that_hangs_is_ended():
    samples, _ = run([case(contender("slow", hangs_at=1)), case(contender("a"))], 1, timeout_seconds=1.0)
    assert "slow: out of time" in samples.failures["slow", "1"]
    assert len(samples.of("a", "1", "seconds")) == 1


def test_a_python_that_is_not_there():
    who = contender("a")
    cases = [case(who)]
    with JobPool(Pythons({"here": "/nowhere/python"})) as jobs:
        samples = measure(benchmark(cases), cases, 1, jobs, lambda text: None)
    assert "Can't start '/nowhere/python'" in samples.failures["a", "1"]


def test_processes_are_pinned_and_know_each_other():
    core = max(os.sched_getaffinity(0))
    places = (Place((core,), "chief"), Place((core,)), Place((core,)), Place((core,), "ps", answers=False))
    with JobPool(Pythons()) as jobs:
        one = case(contender("a"), places=places)
        answers = jobs.of(one.job).ask(one.request, 60)
    assert [answer["cores"] for answer in answers] == [[core]] * 3
    configs = [json.loads(answer["tf_config"]) for answer in answers]
    assert [config["task"] for config in configs] == [
        {"type": "chief", "index": 0},
        {"type": "worker", "index": 0},
        {"type": "worker", "index": 1},
    ]
    cluster = configs[0]["cluster"]
    assert [len(cluster[kind]) for kind in ("chief", "worker", "ps")] == [1, 2, 1]
    assert cluster["worker"] == [answer["address"] for answer in answers[1:]]


def test_ranks_find_their_index(tmp_path, monkeypatch):
    """An `mpiexec` that does what the real one does for two processes: start them, with a number each."""
    mpiexec = tmp_path / "mpiexec"
    mpiexec.write_text('#!/bin/sh\nshift 2\nPMI_RANK=0 "$@" &\nPMI_RANK=1 "$@" &\nwait\n')
    mpiexec.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    places = one_core_each(2)
    with JobPool(Pythons()) as jobs:
        one = case(replace(contender("a"), launcher="mpiexec"), places=places)
        answers = jobs.of(one.job).ask(one.request, 60)
    assert [json.loads(answer["tf_config"])["task"]["index"] for answer in answers] == [0, 1]
    assert [tuple(answer["cores"]) for answer in answers] == [place.cores for place in places]


def test_no_folders_are_left():
    with JobPool(Pythons()) as jobs:
        one = case(contender("a"))
        (answer,) = jobs.of(one.job).ask(one.request, 60)
        folder = Path(os.readlink(f"/proc/{answer['pid']}/cwd"))
        assert folder.is_dir()
    assert not folder.exists()
