"""Workers and parameter servers are killed while `fit` and `evaluate` run: no example is left out."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cluster_runner import run_python
from tests.strategies.programs.parameter_server_faults import PATIENCE_SECONDS, ROWS, STEPS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

#: What was killed, and the epochs that were trained.
FITS = {
    "nothing": 1,
    "restarted feed": 1,
    "restarted graph": 1,
    "restarted records": 1,
    "across an epoch's end": 2,
    "all restarted": 1,
    "restarted": 1,
    "stopped feed": 1,
    "awake again feed": 1,
    "stopped records": 1,
    "awake again records": 1,
    "connections lost": 1,
    "connected again": 1,
    "told to begin anew": 1,
    "begun anew": 1,
    "gone for good": 1,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("faults")
    program = ["-m", "tests.strategies.programs.parameter_server_faults", str(folder)]
    run_python(program, workers=0, logs=folder / "logs", timeout_seconds=500)
    return pickle.loads((folder / "results.pickle").read_bytes())


@pytest.mark.parametrize("name", FITS)
def test_every_example_is_reported_once_and_applied_at_least_once(results, name):
    result = results[name]
    assert result["epochs"] == FITS[name]
    assert result["counts"] == dict.fromkeys(range(ROWS), 1), "in the last epoch"
    assert result["reported"] == STEPS * FITS[name]
    assert result["applied"] >= result["reported"]
    # A worker that wakes up may apply what it was at before this `fit` begins to count.
    late = 1 if name.startswith("awake") else 0
    assert 0 <= result["applied"] - result["reported"] - result["repeated"] <= late


@pytest.mark.parametrize("how", ["feed", "records"])
def test_a_worker_that_is_stopped_is_not_waited_for(results, how):
    assert results[f"stopped {how}"]["seconds"] < 10 * PATIENCE_SECONDS


@pytest.mark.parametrize(
    "name", ["restarted", "awake again feed", "awake again records", "connected again", "begun anew"]
)
def test_a_worker_that_is_back_takes_part(results, name):
    assert results[name]["steps of the second worker"] > 0


def test_evaluate_is_exact_when_a_worker_dies_in_it(results):
    result = results["evaluate"]
    assert result["counts"] == dict.fromkeys(range(ROWS), 1)
    # The order of summation differs, in float32, over 120 batches.
    assert result["received"] == pytest.approx(result["expected"], rel=1e-5)


def test_a_parameter_server_that_dies_is_named_within_5_seconds(results):
    assert "ps/1 at 127.0.0.1:" in results["ps"]["error"]
    assert "BackupAndRestore" in results["ps"]["error"]
    assert results["ps"]["seconds"] < 5.0
