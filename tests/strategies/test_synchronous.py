"""Synchronous steps of three workers: exactly those of one device, and in rounds that no fault or straggler spoils."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.cluster_runner import run_python
from tests.strategies.programs.synchronous import CASES
from tests.strategies.programs.synchronous_rounds import BATCHES, COUNT_AFTER, SLOW_SECONDS, WORKERS

pytestmark = pytest.mark.cluster
PROGRAMS = "tests.strategies.programs"

#: Float32 rounding of sums in another order.
ROUNDING = 1e-6
#: A batch's loss is divided by its words, an epoch's is the mean of batches by rows, so other batches give another one.
WITHOUT_LOSS = ("masked", "accumulated, masked, fed", "two optimizers")
FAULTS = ("restarted", "stopped", "killed", "after")


def run(folder: Path, program: str, *arguments: str) -> dict[str, Any]:
    output = folder / "results.pickle"
    run_python(["-m", f"{PROGRAMS}.{program}", str(output), *arguments], workers=0, logs=folder / "logs")
    return pickle.loads(output.read_bytes())


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("synchronous"), "synchronous")


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("rounds"), "synchronous_rounds")


@pytest.fixture(scope="module", params=[0, 1], ids="{} backup workers".format)
def faults(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    return request.param, run(tmp_path_factory.mktemp("faults"), "synchronous_rounds", str(request.param))


@pytest.mark.parametrize("name", [*CASES, "on batches"])
def test_training_is_that_of_one_device_on_whole_batches(fits, name):
    result = fits[name]
    assert "error" not in result, result["error"]
    found, expected = result["found"], result["expected"]
    assert found["iterations"] == expected["iterations"]
    for key in expected.keys() - (set() if name not in WITHOUT_LOSS else {"loss"}):
        # Plain Keras makes slots for the variables of the first call only.
        if not (key == "slots" and name == "two optimizers"):
            np.testing.assert_allclose(found[key], expected[key], atol=ROUNDING, rtol=ROUNDING, err_msg=key)
    if name in CASES:
        assert expected["moved"] > 1e4 * ROUNDING, "or this shows nothing"


@pytest.mark.parametrize("name", CASES)
def test_no_gradient_is_late_without_backup_workers(fits, name):
    counts, dropped = fits[name]["staleness"]
    assert counts[0] == sum(counts)
    assert dropped == 0


def test_executions_of_several_steps_are_refused(fits):
    said = fits["refusals"]["steps_per_execution"]
    assert "Expected: steps_per_execution=1. Received: steps_per_execution=2 in model.compile()" in said
    assert "gradient_accumulation_steps=K" in said


def test_compensation_of_micro_batches_is_refused(fits):
    said = fits["refusals"]["compensated"]
    assert "Received: update=DelayCompensated(strength=2.0, adaptive=True) and gradient_accumulation_steps=2." in said
    assert "Use StalenessAware()" in said


def check_table(result: dict[str, Any], backup_workers: int, batches: int = BATCHES, before: int = 0) -> None:
    """Each round applied its own gradients, as many as it needs, each with the same weight, and each batch once."""
    needed = WORKERS - backup_workers
    table = result["table"][before : result["iterations"]]
    sizes = np.count_nonzero(table, axis=1)
    assert set(sizes[:-1]) == {needed}
    assert 1 <= sizes[-1] <= needed, "at the end there may be fewer"
    expected = np.where(table > 0, 1 / sizes[:, None], 0)
    np.testing.assert_allclose(table, expected, atol=ROUNDING, err_msg="weights within a round")
    assert np.count_nonzero(result["table"]) == sizes.sum(), "nothing in rounds that were not"
    assert np.count_nonzero(table, axis=0).max() == 1, "no batch twice"
    assert sizes.sum() == batches - result["dropped"]
    assert result["counts"][0] == sizes.sum()
    assert sum(result["counts"]) == result["reported"] == batches
    assert result["left"] == 0


@pytest.mark.parametrize("backup_workers", [0, 1])
def test_each_round_applies_its_own_gradients(rounds, backup_workers):
    result = rounds[f"slow, {backup_workers}"]
    check_table(result, backup_workers)
    assert result["history"]["dropped"] == [result["dropped"]]
    assert (result["dropped"] > 0) == bool(backup_workers)


def test_without_backup_workers_all_wait_for_the_slowest(rounds):
    result = rounds["slow, 0"]
    assert result["iterations"] == BATCHES / WORKERS
    assert result["steps of each worker"][0] == BATCHES / WORKERS


def test_a_backup_worker_stands_in_for_the_slowest(rounds):
    """It makes one gradient while others make several, all of its own are late, and nearly all of theirs count."""
    result = rounds["slow, 1"]
    slow, *others = result["steps of each worker"]
    assert 0 < 2 * slow < min(others), f"although each takes it {SLOW_SECONDS} s"
    assert result["iterations"] > 2 * slow
    assert result["dropped"] < slow + sum(others) / 5


def test_all_functions_are_there_when_workers_begin(rounds):
    """One that is made later is told to all workers, and the chief waits for one that is stopped."""
    at_first, at_last = rounds["slow, 1"]["made"]
    assert at_first == at_last == {("apply", 2), ("drop", 1), ("clear", 0)}


@pytest.mark.parametrize("backup_workers", [0, 1])
def test_an_interrupted_fit_leaves_nothing(rounds, backup_workers):
    result = rounds[f"interrupted, {backup_workers}"]
    assert result["left as the next begins"] == 0
    check_table(result, backup_workers, COUNT_AFTER, result["before"])


def test_an_interrupted_fit_had_left_something(rounds):
    """11 gradients, 3 rounds; or the test above shows nothing."""
    assert rounds["interrupted, 0"]["left by the interrupted"] > 0


@pytest.mark.parametrize("name", FAULTS)
def test_each_batch_is_applied_once_whatever_happens_to_workers(faults, name):
    backup_workers, results = faults
    check_table(results[name], backup_workers)
    if not backup_workers:
        assert results[name]["iterations"] == BATCHES / WORKERS


def test_a_worker_that_is_gone_makes_no_steps(faults):
    first, *others = faults[1]["after"]["steps of each worker"]
    assert first == 0
    assert sum(others) == BATCHES


def test_a_parameter_server_that_dies_is_named(faults):
    assert "ps/1 at 127.0.0.1:" in faults[1]["ps"]["error"]
