"""A job that is killed at any moment and started again ends as one that was not: bits, history, order of records."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoint.programs.train import EPOCHS, RECORDS, STEPS
from tests.helpers.cluster_runner import ClusterFailed, run_python
from tests.helpers.nightly import nightly
from tests.helpers.setups import WORKERS

pytestmark = pytest.mark.cluster

#: How often a job is killed in the ordinary tests, and in those of the night.
KILLS, NIGHTLY_KILLS = 5, 30


def run(setup: str, folder: Path, *options: str) -> None:
    arguments = ["-m", "tests.checkpoint.programs.train", setup, str(folder), *options]
    run_python(arguments, workers=WORKERS[setup], logs=folder / "logs")


def run_killed(setup: str, folder: Path, *options: str) -> None:
    with pytest.raises(ClusterFailed, match=r"exited with -9|killed|Collective|UNAVAILABLE|CANCELLED"):
        run(setup, folder, *options)


def expect_equal(setup: str, killed: Path, whole: Path) -> None:
    for worker in range(max(WORKERS[setup], 1)):
        found, expected = ((one / f"result-{worker}.json").read_text() for one in (killed, whole))
        assert json.loads(found) == json.loads(expected)
        found, expected = (dict(np.load(one / f"result-{worker}.npz")) for one in (killed, whole))
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def random_moments(seed: int, count: int) -> list[str]:
    """Of a job that goes on after each; most of them while it trains."""
    moments = random.Random(seed)
    kinds = ["begin", "begin", "begin", "test", "write"]
    # A moment that is too late for what is left of the training would not come.
    most = {"begin": STEPS - 2, "test": 3, "write": 8}
    return [f"{kind},{moments.randint(1, most[kind])}" for kind in moments.choices(kinds, k=count)]


def kill_often(setup: str, tmp_path: Path, kills: int, *options: str, victims: tuple[str, ...] = ("0",)) -> None:
    """Kill a job again and again, until it is done; no victim is left out."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"moments of seed {seed}")
    run(setup, tmp_path / "whole", *options)
    done = tmp_path / "killed" / "result-0.json"
    for number, moment in enumerate(random_moments(seed, kills)):
        kill = [f"--kill={moment}", f"--victims={victims[number % len(victims)]}"]
        try:
            run(setup, tmp_path / "killed", *options, *kill)
        except ClusterFailed as error:
            assert "Error" not in str(error) or WORKERS[setup], error
        if done.exists():
            break
    run(setup, tmp_path / "killed", *options)
    expect_equal(setup, tmp_path / "killed", tmp_path / "whole")


# Seven processes one after another, or four pairs, on a busy machine.
@pytest.mark.timeout(900)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Dropout, batch normalization, a shuffle, callbacks with a state and random numbers, on two replicas."""
    kill_often("mirrored2", tmp_path, KILLS)


@pytest.mark.timeout(900)
def test_workers_killed_at_random_moments(tmp_path: Path) -> None:
    """A worker, the chief, both."""
    kill_often("workers2", tmp_path, 3, "--micro_batches=3", victims=("1", "0", "0,1"))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("setup", ["mirrored2", "workers2"])
def test_killed_at_many_random_moments(tmp_path: Path, setup: str) -> None:
    options = [["--micro_batches=4"], ["--data=arrays"], ["--ema"], ["--data=tfrecords"], ["--every_epoch"], []]
    victims = ("0", "1", "0,1") if WORKERS[setup] else ("0",)
    for job in range(NIGHTLY_KILLS // KILLS):
        kill_often(setup, tmp_path / str(job), KILLS, *options[job], victims=victims)


@pytest.mark.parametrize(
    ("setup", "options", "kill"),
    [
        ("one_device", ["--data=unknown", "--every_steps=12"], "1,11"),  # a checkpoint behind the epoch's last batch
        nightly("one_device", ["--data=repeat"], "2,5"),
        ("one_device", ["--data=arrays", "--schedule", "--ema"], "2,8"),
        ("one_device", ["--data=tfrecords"], "2,8"),
        nightly("one_device_strategy", ["--data=dataset", "--steps_per_execution=5"], "2,9"),
        nightly("one_device", ["--every_epoch"], "test,8"),
        ("one_device", ["--every_epoch", "--early_stopping"], "2,5"),
        ("mirrored2", ["--micro_batches=4", "--embedding", "--leftover=carry"], "2,6"),
    ],
)
def test_goes_on_to_the_same_bits(tmp_path: Path, setup: str, options: list[str], kill: str) -> None:
    run(setup, tmp_path / "whole", *options)
    run_killed(setup, tmp_path / "killed", *options, f"--kill={kill}")
    run(setup, tmp_path / "killed", *options)
    expect_equal(setup, tmp_path / "killed", tmp_path / "whole")
    result = json.loads((tmp_path / "whole" / "result-0.json").read_text())
    if "--early_stopping" in options:
        assert len(result["epochs"]) < EPOCHS  # or it would not be seen whether its patience was kept
        # Started once more, it ends again, with the weights of the best epoch.
        run(setup, tmp_path / "killed", *options)
        expect_equal(setup, tmp_path / "killed", tmp_path / "whole")
    elif result["order"] and "repeat" not in options[0]:
        assert sorted(result["order"][0]) == sorted([*range(RECORDS)] * EPOCHS)
