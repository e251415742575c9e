"""Policies of tfdist.updates in `fit`, on three workers of which one is ten times as slow."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cluster_runner import run_python
from tests.strategies.programs.updates import BOUND, EPOCHS, POLICIES, STEPS

pytestmark = pytest.mark.cluster

#: Whose pushes are all applied.
WITHOUT_DROPS = [name for name, policy in POLICIES.items() if policy is None or name != "drop"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("updates")
    output = folder / "results.pickle"
    run_python(["-m", "tests.strategies.programs.updates", str(output)], workers=0, logs=folder / "logs")
    return pickle.loads(output.read_bytes())


@pytest.mark.parametrize("name", POLICIES)
def test_every_push_is_counted(results, name):
    found = results[name]
    assert sum(found["counts"]) == STEPS, "of the last epoch"
    assert found["reported"] == STEPS * EPOCHS


@pytest.mark.parametrize("name", WITHOUT_DROPS)
def test_every_push_is_applied(results, name):
    found = results[name]
    assert (found["dropped"], found["repeated"]) == (0, 0)
    assert found["iterations"] == STEPS * EPOCHS


def test_the_first_worker_is_slow_and_the_others_overtake_it(results):
    first, *others = results["async"]["steps of each worker"]
    assert 0 < first < sum(others) / 2, "less than the others on average"
    assert results["async"]["largest"] > BOUND, "or the bound below would bound nothing"


@pytest.mark.parametrize("name", ["wait", "drop"])
def test_no_gradient_that_is_applied_is_older_than_the_bound(results, name):
    found = results[name]
    assert sum(found["counts"][BOUND + 1 :]) == found["dropped"]
    if name == "wait":
        assert found["largest"] <= BOUND
        assert found["steps of each worker"][0] > 0, "the slow one takes part"


def test_what_is_dropped_is_no_optimizer_step(results):
    found = results["drop"]
    dropped = sum(found["history"]["dropped"])
    assert dropped > 0
    assert found["iterations"] == STEPS * EPOCHS - dropped


def test_one_step_at_a_time_has_no_staleness(results):
    assert results["one at a time"]["largest"] == 0


def test_executions_of_several_steps_keep_the_bound(results):
    found = results["wait, 2 steps an execution"]
    assert found["largest"] <= 3
    assert found["iterations"] == STEPS * EPOCHS


def test_what_was_added_up_is_one_push(results):
    found = results["accumulated"]
    assert sum(found["counts"]) == STEPS // 4
    assert found["iterations"] == STEPS // 4 * EPOCHS


def test_a_worker_that_is_gone_holds_up_nobody(results):
    found = results["killed"]
    assert found["reported"] == STEPS * EPOCHS
    assert sum(found["counts"][BOUND + 1 :]) == found["dropped"]


def test_logs_have_the_staleness_if_a_policy_was_chosen(results):
    assert {"staleness", "max_staleness", "loss"} == results["async"]["history"].keys()
    assert results["drop"]["history"].keys() - results["async"]["history"].keys() == {"dropped"}
    assert results["none"]["history"].keys() == {"loss"}
    last = results["async"]
    assert last["history"]["max_staleness"][-1] == last["largest"]
