"""Runs all cases in a set-up and compares what they returned with one device."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.cases import Case
from tests.helpers.cluster_runner import ClusterFailed, run_python
from tests.helpers.mpi_ranks import run_ranks
from tests.helpers.setups import RANKS, WORKERS

#: Where the largest differences are kept for docs/matrix.md; see tests/helpers/matrix_table.py.
REPORT = os.environ.get("TFDIST_MATRIX_REPORT", "")


@dataclass(frozen=True)
class Comparison:
    """One cell of the matrix."""

    setup: str
    case: str
    difference: float
    workers_equal: bool


#: Two set-ups at a time, which is what two cores can do.
_pool = ThreadPoolExecutor(2)
_cases: dict[str, Iterable[str]] = {}
_runs: dict[str, Future[list[dict[str, Any]]]] = {}


def start(cases: dict[str, Iterable[str]]) -> None:
    """Begin to run cases, by their set-ups, in this order; set-ups of several processes wait until they are asked for.

    Args:
        cases: Names, by set-up; none are all.
    """
    _cases.update(cases)
    for setup in cases:
        if setup not in _runs and not WORKERS.get(setup, RANKS.get(setup)):
            _runs[setup] = _pool.submit(_run, setup)


def results(setup: str) -> list[dict[str, Any]]:
    """What every task of a set-up returned for every case."""
    if setup not in _runs:
        _runs[setup] = _pool.submit(_run, setup)
    return _runs[setup].result()


def _run(setup: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="tfdist-matrix-") as folder:
        output = Path(folder)
        arguments = ["-m", "tests.helpers.run_cases", setup, str(output), *_cases.get(setup, ())]
        try:
            if setup in RANKS:
                run_ranks(arguments, ranks=RANKS[setup], log=output / "log", timeout_seconds=1500)
            else:
                run_python(arguments, workers=WORKERS[setup], logs=output / "logs", timeout_seconds=1500)
        except ClusterFailed as failure:
            return [{"": {"error": str(failure)}}]
        return [pickle.loads(path.read_bytes()) for path in sorted(output.glob("*.pickle"))]


def compare(setup: str, case: Case) -> Comparison:
    """The largest difference to one device, and whether all workers returned the same bits.

    Raises:
        AssertionError: the case failed, with its traceback, or returned something else than on one device.
    """
    reference, tasks = results("one_device"), results(setup)
    expected = _values(reference[0], case.name)
    ranks = [_values(rank, case.name) for rank in tasks]
    assert ranks[0].keys() == expected.keys()
    worst = max(difference_of(name, ranks[0][name], expected[name]) for name in expected)
    equal = all(np.array_equal(rank[n], ranks[0][n], equal_nan=True) for rank in ranks for n in expected)
    comparison = Comparison(setup, case.name, worst, equal)
    if REPORT:
        with Path(REPORT).open("a") as report:
            report.write(json.dumps(asdict(comparison)) + "\n")
    return comparison


def _values(rank: dict[str, Any], case: str) -> dict[str, np.ndarray]:
    outcome = rank.get(case) or rank.get("") or {"error": f"not run; run before it: {list(rank)[-1]}"}
    assert "error" not in outcome, outcome["error"]
    return outcome["values"]


def difference_of(name: str, value: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, absolute, or relative where the expected value is above 1."""
    assert value.shape == expected.shape, f"{name}: shape {value.shape}, on one device {expected.shape}"
    if not value.size:
        return 0.0
    difference = np.abs(value.astype("float64") - expected.astype("float64"))
    return float(np.max(difference / np.maximum(1.0, np.abs(expected))))
