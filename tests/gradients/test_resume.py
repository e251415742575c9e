"""A job that is killed in the middle of an accumulation goes on to the weights it would have had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.cluster_runner import ClusterFailed, run_python
from tests.helpers.nightly import nightly
from tests.helpers.setups import WORKERS

#: The same sums in another order where the number of replicas changes, in float32.
TOLERANCE = 1e-6


def run(setup: str, folder: Path, kind: str, *options: str) -> None:
    folder.mkdir(exist_ok=True)
    arguments = ["-m", "tests.gradients.programs.resume", setup, str(folder), kind, *options]
    run_python(arguments, workers=WORKERS[setup], logs=folder / "logs")


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        nightly("keras", "mirrored2", "mirrored2"),
        nightly("keras", "workers2", "workers2"),
        ("keras", "workers2", "mirrored3"),
        ("tensorflow", "mirrored2", "one_device_strategy"),
        ("tensorflow", "workers2", "workers2"),
    ],
)
def test_resumes_in_the_middle_of_accumulating(tmp_path: Path, kind: str, before: str, after: str) -> None:
    with pytest.raises(ClusterFailed, match=r"exited with -9|killed|Collective|UNAVAILABLE|CANCELLED"):
        run(before, tmp_path / "killed", kind, "--killed")
    run(after, tmp_path / "killed", kind)
    run("one_device_strategy", tmp_path / "whole", kind)
    resumed = np.load(tmp_path / "killed" / "weights-0.npy")
    np.testing.assert_allclose(resumed, np.load(tmp_path / "whole" / "weights-0.npy"), atol=TOLERANCE)
