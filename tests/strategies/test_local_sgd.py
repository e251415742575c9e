"""LocalSGDStrategy against N plain Keras models that are averaged by hand."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.cluster_runner import run_python
from tests.helpers.nightly import nightly
from tests.helpers.once import once
from tests.strategies.programs.local_sgd_cases import CASES

#: In float64, of the same sums in another order.
TOLERANCE = 1e-12
ON_WORKERS = ("sgd", "batch normalization", "adam averaged", "diloco", "warm-up", "fragments", "overlap", "saved")
#: Workers and devices of each, and what is trained there.
SETUPS = {
    (1, 2): [name for name in CASES if name not in ("levels", *ON_WORKERS)],
    (2, 1): [*ON_WORKERS],
    (2, 2): ["levels"],
    (1, 3): [*ON_WORKERS],
}
NIGHTLY = [(1, 3)]


@once
def results(program: str, workers: int, devices: int) -> list[dict[str, Any]]:
    """What every process returned for every case."""
    with tempfile.TemporaryDirectory(prefix="tfdist-local-sgd-") as folder:
        output = Path(folder)
        module = f"tests.strategies.programs.{program}"
        arguments = ["-m", module, str(output), str(workers), str(devices), *SETUPS[workers, devices]]
        processes = workers if workers > 1 and program == "local_sgd" else 0
        run_python(arguments, workers=processes, logs=output / "logs", timeout_seconds=560)
        return [pickle.loads(path.read_bytes()) for path in sorted(output.glob("*.pickle"))]


@pytest.mark.cluster
@pytest.mark.timeout(1200)  # the first test of a set-up runs all of its cases, twice
@pytest.mark.parametrize(
    ("workers", "devices", "case"),
    [
        nightly(*setup, case) if setup in NIGHTLY else (*setup, case)
        for setup, cases in SETUPS.items()
        for case in cases
    ],
)
def test_equals_models_averaged_by_hand(workers: int, devices: int, case: str) -> None:
    (expected,) = results("local_sgd_simulation", workers, devices)
    found = [worker[case] for worker in results("local_sgd", workers, devices)]
    for worker in found:
        assert not isinstance(worker, str), worker
        assert worker.keys() == expected[case].keys()
        for name, value in expected[case].items():
            np.testing.assert_allclose(worker[name], value, rtol=0, atol=TOLERANCE, err_msg=name)
            np.testing.assert_array_equal(worker[name], found[0][name], err_msg=name)


@pytest.mark.cluster
@pytest.mark.parametrize(("workers", "devices"), [(0, 3), (2, 1)])
def test_averaging_every_step_of_plain_sgd_is_synchronous(tmp_path: Path, workers: int, devices: int) -> None:
    """Logs of every epoch too. In float32, of the same sums in another order: 1e-6."""
    arguments = ["-m", "tests.strategies.programs.local_sgd_every_step", str(tmp_path), str(devices)]
    run_python(arguments, workers=workers, logs=tmp_path / "logs")
    for path in tmp_path.glob("*.pickle"):
        found = pickle.loads(path.read_bytes())
        assert found["local"].keys() == found["synchronous"].keys()
        for name, value in found["synchronous"].items():
            np.testing.assert_allclose(found["local"][name], value, rtol=1e-6, atol=1e-6, err_msg=name)
