"""Each worker's own data, from `distribute_datasets_from_function`: all of it is seen, by whichever worker is free."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cluster_runner import run_python
from tests.strategies.programs.worker_streams import BATCH, ROWS, SHORT

pytestmark = pytest.mark.cluster

EVERY_ROW = dict.fromkeys([*range(0, ROWS, 2), *range(1, 2 * SHORT, 2)], 1)
#: 50 rows of the first worker, 10 of the second.
STEPS = -(-50 // BATCH) + -(-SHORT // BATCH)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("streams")
    output = folder / "results.pickle"
    run_python(["-m", "tests.strategies.programs.worker_streams", str(output)], workers=0, logs=folder / "logs")
    return pickle.loads(output.read_bytes())


@pytest.mark.parametrize("name", ["read by workers", "fed", "3 steps an execution"])
def test_an_epoch_has_every_row_of_every_stream_once(results, name):
    found = results[name]
    assert found["counts"] == EVERY_ROW
    assert (found["epochs"], found["steps"]) == (2, 2 * STEPS)


def test_more_replicas_than_a_worker_has_devices_are_refused(results):
    assert "Expected: 2 CPUs. Received: 1 on worker 0" in results["too many replicas"]
    assert "cpus_per_worker=2" in results["too many replicas"]


def test_data_that_was_made_before_the_strategy_is_read_or_refused(results):
    assert results["predicted, made before"] == (ROWS, 1)
    assert "Make the strategy first" in results["Python, made before"]


def test_classes_are_weighed(results):
    assert results["class weights"]["counts"] == EVERY_ROW


def test_streams_without_an_end_have_as_many_steps_as_were_asked_for(results):
    found = results["without an end"]
    assert (found["epochs"], found["steps"]) == (2, 14)
    assert sum(found["counts"].values()) <= 7 * BATCH


def test_evaluate_and_predict_have_every_row_once(results):
    assert results["evaluated"] == EVERY_ROW
    assert results["predicted"] == (50 + SHORT, 1)
