"""Models of legacy tf_keras train under both synchronous strategies as on one device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.cluster_runner import run_python

PROGRAM = Path(__file__).with_name("legacy_program.py")


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> dict[str, np.ndarray]:
    return results_of("one", tmp_path_factory.mktemp("one"))[0]


def results_of(strategy: str, folder: Path, workers: int = 0) -> list[dict[str, np.ndarray]]:
    """What each process found."""
    run_python([str(PROGRAM), strategy, str(folder / "result")], workers=workers, logs=folder / "logs")
    return [dict(np.load(folder / f"result.{index}.npz")) for index in range(max(workers, 1))]


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.unit
def test_mirrored(one_device, tmp_path):
    assert_same(results_of("mirrored", tmp_path)[0], one_device)


@pytest.mark.cluster
def test_two_workers(one_device, tmp_path):
    for found in results_of("multi_worker", tmp_path, workers=2):
        assert_same(found, one_device)
