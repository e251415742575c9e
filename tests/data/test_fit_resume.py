"""A `fit` on TFRecords that is killed and started again uses each record as often as one that was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.programs.resume import EPOCHS, RECORDS
from tests.helpers.cluster_runner import ClusterFailed, run_python
from tests.helpers.nightly import nightly
from tests.helpers.setups import WORKERS

pytestmark = pytest.mark.cluster


def run(setup: str, folder: Path, *options: str) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    arguments = ["-m", "tests.data.programs.resume", setup, str(folder), *options]
    run_python(arguments, workers=WORKERS[setup], logs=folder / "logs")
    return np.load(folder / "weights-0.npy")


def run_killed(setup: str, folder: Path, *options: str) -> None:
    with pytest.raises(ClusterFailed, match=r"exited with -9|killed|Collective|UNAVAILABLE|CANCELLED"):
        run(setup, folder, *options)


@pytest.mark.parametrize(
    ("setup", "shuffle", "batch", "kill", "victim"),
    [
        nightly("mirrored2", "global", 8, "1,6", 0),
        ("mirrored2", "local", 8, "1,11", 0),  # the last batch of an epoch
        ("workers2", "global", 8, "1,6", 1),
        nightly("workers2", "no", 8, "0,4", 0),
        nightly("workers2", "local", 8, "1,7", 0),
        nightly("workers2", "global", 8, "rename,8", 0),  # positions are saved, the weights that they belong to are not
        ("workers2", "global", 8, "rename,9", 0),  # weights are saved, Keras' metadata is not
    ],
)
def test_each_record_is_used_once_an_epoch(
    tmp_path: Path, setup: str, shuffle: str, batch: int, kill: str, victim: int
) -> None:
    options = [f"--shuffle={shuffle}", f"--batch={batch}"]
    run_killed(setup, tmp_path / "killed", *options, f"--kill={kill}", f"--victim={victim}")
    uses = run(setup, tmp_path / "killed", *options) * batch
    # 1/8 and its sums are exact in float32.
    np.testing.assert_array_equal(uses, np.full(RECORDS, EPOCHS))


@pytest.mark.parametrize("steps_per_execution", [nightly(1), 3])
def test_in_the_same_order(tmp_path: Path, steps_per_execution: int) -> None:
    """With Adam the order counts, and the last batch has 6 rows; the same operations give the same bits."""
    options = ["--shuffle=global", "--batch=10", "--optimizer=adam", f"--steps_per_execution={steps_per_execution}"]
    run_killed("workers2", tmp_path / "killed", *options, "--kill=1,5")
    resumed = run("workers2", tmp_path / "killed", *options)
    np.testing.assert_array_equal(resumed, run("workers2", tmp_path / "whole", *options))


def test_on_another_number_of_workers(tmp_path: Path) -> None:
    """The global order depends on no number of workers."""
    options = ["--shuffle=global", "--batch=8"]
    run_killed("workers2", tmp_path / "killed", *options, "--kill=1,6")
    uses = run("mirrored2", tmp_path / "killed", *options) * 8
    np.testing.assert_array_equal(uses, np.full(RECORDS, EPOCHS))
