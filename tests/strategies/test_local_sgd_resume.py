"""A job under LocalSGDStrategy that is killed goes on to the same bits as one that was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.cluster_runner import ClusterFailed, run_python

pytestmark = pytest.mark.cluster


def run(folder: Path, workers: int, devices: int, inner_state: str, backup: str, *victim: str) -> None:
    folder.mkdir(exist_ok=True)
    arguments = ["-m", "tests.strategies.programs.local_sgd_resume", str(folder), str(devices), inner_state]
    arguments += [backup, *victim]
    run_python(arguments, workers=workers, logs=folder / "logs")


def run_killed(folder: Path, workers: int, devices: int, inner_state: str, backup: str, victim: int) -> None:
    with pytest.raises(ClusterFailed, match=r"exited with -9|killed|Collective|UNAVAILABLE|CANCELLED"):
        run(folder, workers, devices, inner_state, backup, str(victim))
    assert any((folder / "backup").iterdir())


@pytest.mark.parametrize(
    ("workers", "devices", "inner_state", "backup", "victim"),
    [(2, 1, "keep", "keras", 1), (0, 2, "average", "keras", 0), (0, 2, "keep", "tfdist", 0)],
)
def test_resumes_with_the_same_bits(
    tmp_path: Path, workers: int, devices: int, inner_state: str, backup: str, victim: int
) -> None:
    """Killed after an averaging since the last backup, and steps since that."""
    run_killed(tmp_path / "killed", workers, devices, inner_state, backup, victim)
    run(tmp_path / "killed", workers, devices, inner_state, backup)
    run(tmp_path / "whole", workers, devices, inner_state, backup)
    for worker in range(max(workers, 1)):
        resumed, whole = (dict(np.load(tmp_path / which / f"{worker}.npz")) for which in ("killed", "whole"))
        assert whole["iterations"] == 30
        for name in whole:
            np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
