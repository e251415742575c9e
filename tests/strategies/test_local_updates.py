"""Policies with parameters of the worker's own, in `fit`, against one device's Keras averaged by hand."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.cluster_runner import run_python
from tests.strategies.programs.local_updates import EPOCHS, EVERY, PARTS, TOGETHER

pytestmark = pytest.mark.cluster

#: Float32 rounding over 76 steps; by hand the sums are made in another order.
TOLERANCE = 1e-6
STEPS = 38


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("local_updates")
    output = folder / "results.pickle"
    program = ["-m", "tests.strategies.programs.local_updates", str(output)]
    run_python(program, workers=0, logs=folder / "logs", timeout_seconds=600)
    return pickle.loads(output.read_bytes())


EXACT = [
    *("elastic sgd", "elastic adam", "elastic momentum"),
    *("accumulated", "accumulated adam", "incremental", "incremental adam"),
]


@pytest.mark.parametrize("name", EXACT)
def test_as_worked_out_by_hand(results, name):
    found, expected = results[name]["weights"], results[f"{name} by hand"]["weights"]
    for value, by_hand in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, by_hand, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", EXACT)
def test_the_optimizer_counts_all_workers_steps(results, name):
    assert results[name]["iterations"] == results[name]["reported"] == STEPS * EPOCHS


def test_a_worker_meets_the_centre_every_so_many_steps(results):
    meetings = (STEPS * EPOCHS - 1) // EVERY - (STEPS - 1) // EVERY
    assert results["elastic sgd"]["pushes"] == meetings, "of the last epoch"
    assert results["accumulated"]["pushes"] == results["incremental"]["pushes"] == -(-STEPS // TOGETHER)


@pytest.mark.parametrize("name", ["Accumulated", "ElasticAveraging", "Incremental"])
def test_mixed_precision_and_constraints(results, name):
    found = results[f"mixed {name}"]
    assert found["iterations"] == 150
    assert found["loss"][-1] < 1.0, "the labels' variance is 4"
    assert found["norm"] <= 2.0 + 1e-3, "averages of constrained kernels are"


@pytest.mark.parametrize("name", ["tally", "tally killed"])
def test_each_part_counts_once(results, name):
    """Also those of a worker that was killed, which another does again."""
    found = results[name]
    assert found["tally"].tolist() == [1.0] * found["tally"].size
    assert found["reported"] == PARTS * 2


def test_workers_of_elastic_averaging_need_no_other(results):
    found = results["elastic killed"]
    assert found["iterations"] == found["reported"] == STEPS * EPOCHS
    assert found["loss"][-1] < found["loss"][0]


def test_parts_are_as_long_as_their_worker_is_fast(results):
    """One is ten times as slow as the other two; with equal parts all would make 200 steps."""
    slow = results["paced"]["steps of each worker"][0]
    assert 0 < slow < 100
    assert results["paced"]["reported"] == 600


def test_parts_have_as_many_records_whatever_is_known_of_the_data(results):
    """38 steps of unknown number are 10 parts of 4; 10 are 3; where the length is known nothing is left out."""
    found = results["lengths"]
    assert found["unknown"] == (STEPS, 10)
    assert found["limited"] == (10, 3)
    assert found["all"][0] == STEPS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accumulation", "Received: gradient_accumulation_steps=2. Leave it out."),
        ("use_ema", "Received: use_ema=True in optimizer"),
        ("no optimizer", "Received: optimizer=None."),
        ("shards", "Leave out variable_partitioner"),
        ("one batch", "Use fit."),
    ],
)
def test_what_cannot_be_is_refused(results, name, expected):
    assert expected in results["refused"][name]
