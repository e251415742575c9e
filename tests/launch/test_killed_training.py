"""Training under `tfdist launch`: killed tasks, and a killed launcher, cost time and not a bit of the weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

pytestmark = pytest.mark.cluster

Start = Callable[..., subprocess.Popen]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    started: list[subprocess.Popen] = []

    def do(folder: Path, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.Popen:
        command = [sys.executable, "-m", "tfdist", "launch", "--workers=2", "--env=CUDA_VISIBLE_DEVICES=-1", *options]
        command += ["-m", "tests.launch.programs.train", str(folder), *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield do
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen) -> str:
    _, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    return err


def result(folder: Path) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "result.npz"))


@pytest.fixture(scope="module")
def quiet(start: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The result of a job that nobody disturbs."""
    folder = tmp_path_factory.mktemp("quiet")
    finish(start(folder))
    return result(folder)


def expect_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_the_launcher_is_killed_and_then_told_to_end(start, quiet, tmp_path, wait_until):
    """And launched again each time. It's killed between two checkpoints, so that a step is made again; then a scheduler
    takes the machine back, and all that is done is saved."""
    process = start(tmp_path, "--pause=1,3")
    wait_until(lambda: (tmp_path / "paused-0").exists() and (tmp_path / "paused-1").exists(), 120)
    tasks = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    wait_until(lambda: not any(task.is_running() and task.status() != psutil.STATUS_ZOMBIE for task in tasks))
    assert list((tmp_path / "checkpoints").glob("epoch-*"))
    process = start(tmp_path, "--slow=1,3")
    wait_until(lambda: (tmp_path / "slow-0").exists() and (tmp_path / "slow-1").exists(), 120)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "preempted: training state is saved, and the same command goes on with it" in err
    finish(start(tmp_path))
    expect_equal(result(tmp_path), quiet)


def test_a_worker_and_the_chief_are_killed_in_turn(start, quiet, tmp_path):
    err = finish(start(tmp_path, "--kill=1,0,3", "--kill=0,1,5", options=("--max_restarts=2",)))
    assert err.index("worker/1 failed first: killed by SIGKILL") < err.index("worker/0 failed first: killed by SIGKILL")
    assert "started again (restart 2 of 2)" in err
    expect_equal(result(tmp_path), quiet)


def test_a_step_that_always_fails_ends_the_job(start, tmp_path):
    """Where training goes on from a checkpoint, so that the second attempt comes to the step another way."""
    process = start(tmp_path, "--fail=1,1,3", options=("--max_restarts=9",))
    _, err = process.communicate(timeout=150)
    assert process.returncode == 1
    assert err.count("worker/1 failed first") == 2, err
    said = "worker/1 failed in the same way at the same step twice: ValueError: a bad record (at epoch 1, batch 3,"
    assert said in err
