"""Checkpoints of models on a mesh: killed and gone on from to the same bits, and loaded into any other strategy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.test_resume import expect_equal, kill_often, run, run_killed
from tests.helpers.cluster_runner import ClusterFailed, run_python
from tests.helpers.nightly import nightly
from tests.helpers.once import once
from tests.strategies.programs.hybrid_parallel_memory import PARAMETER_BYTES
from tests.strategies.test_hybrid_parallel import TOLERANCE
from tests.strategies.test_hybrid_parallel import run as run_program

pytestmark = pytest.mark.cluster


#: In the middle of an accumulation, of an epoch, and on two processes.
ACCUMULATING = ["--micro_batches=4", "--leftover=carry", "--epochs=2"]


@pytest.mark.parametrize(
    ("setup", "options", "kill"),
    [
        ("hybrid_workers2", ACCUMULATING, "1,8"),
        nightly("hybrid", [], "1,8"),
        nightly("hybrid", ACCUMULATING, "1,8"),
        nightly("hybrid", ["--every_epoch", "--data=arrays", "--ema"], "2,5"),
        nightly("hybrid", ["--data=tfrecords"], "2,8"),
        nightly("hybrid", ["--embedding", "--steps_per_execution=5"], "2,9"),
        nightly("hybrid_workers2", ["--data=tfrecords"], "2,8"),
    ],
)
def test_goes_on_to_the_same_bits(tmp_path: Path, setup: str, options: list[str], kill: str) -> None:
    """Tensors and FSDP on 2 x 2 devices, with dropout, batch normalization, a shuffle and callbacks with a state."""
    run(setup, tmp_path / "whole", *options)
    run_killed(setup, tmp_path / "killed", *options, f"--kill={kill}")
    run(setup, tmp_path / "killed", *options)
    expect_equal(setup, tmp_path / "killed", tmp_path / "whole")


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("setup", "victims"), [("hybrid", ("0",)), ("hybrid_workers2", ("1", "0", "0,1"))])
def test_killed_at_random_moments(tmp_path: Path, setup: str, victims: tuple[str, ...]) -> None:
    """Also in the middle of a file."""
    kill_often(setup, tmp_path, 6, victims=victims)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return load_all(tmp_path_factory.mktemp("checkpoints"))


@once
def load_all(folder: Path) -> dict[str, Any]:
    """Every pair, in three processes."""
    first = [f"save:{name}:{folder / name}" for name in ("mirrored", "one_device")]
    run_program("hybrid_parallel_checkpoints", first, folder)
    second = [f"save:mesh:{folder / 'mesh'}", *(f"load:mesh:{folder / name}" for name in ("mirrored", "one_device"))]
    second += [f"load:{name}:{folder / 'mesh'}" for name in ("zero1", "tensor", "one_device")]
    found = run_program("hybrid_parallel_checkpoints", second, folder)
    return found | run_program("hybrid_parallel_checkpoints", [f"load:mirrored:{folder / 'mesh'}"], folder)


@pytest.mark.parametrize(
    "pair", ["mesh-zero1", "mesh-tensor", "mesh-one_device", "mesh-mirrored", "mirrored-mesh", "one_device-mesh"]
)
def test_goes_on_under_another_strategy(loaded: dict[str, Any], pair: str) -> None:
    """From the middle of an epoch, with its metrics; what is loaded is the same to the bit."""
    expect_loaded(loaded[pair])


def expect_loaded(found: dict[str, float]) -> None:
    assert found["moved"] > 1e-3, "training changed nothing"
    assert (found["loaded"], found["weights alone"]) == (0.0, 0.0)
    assert found["ended"] < TOLERANCE


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("saving", "before", "loading", "after"),
    [("mesh", 2, "mesh", 0), ("mesh", 0, "mesh", 2), ("mesh", 2, "workers", 2), ("workers", 2, "mesh", 2)],
)
def test_goes_on_in_another_job(tmp_path: Path, saving: str, before: int, loading: str, after: int) -> None:
    """More or fewer processes, and workers whose replicas have all of the model."""
    folder = tmp_path / "checkpoints"
    run_program("hybrid_parallel_checkpoints", [f"save:{saving}:{folder}"], tmp_path, before)
    found = run_program("hybrid_parallel_checkpoints", [f"load:{loading}:{folder}"], tmp_path, after)
    expect_loaded(found[f"checkpoints-{loading}"])


@pytest.mark.nightly
def test_a_model_larger_than_the_memory_of_a_process(tmp_path: Path) -> None:
    """Four workers make, train, save and load it, each within less than its parameters take; one process is killed."""
    program = ["-m", "tests.strategies.programs.hybrid_parallel_memory"]
    run_python([*program, str(tmp_path)], workers=4, logs=tmp_path / "logs", timeout_seconds=600)
    for worker in range(4):
        found = json.loads((tmp_path / f"{worker}.json").read_text())
        assert found["what was saved"]
        # A quarter of it, as much of gradients, and the rest for blocks and allocators.
        assert found["loaded"] < PARAMETER_BYTES * 3 // 4
    with pytest.raises(ClusterFailed, match="exited with -9"):
        run_python([*program, str(tmp_path / "alone")], workers=0, logs=tmp_path / "logs", timeout_seconds=600)
