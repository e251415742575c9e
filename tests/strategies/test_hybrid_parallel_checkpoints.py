"""Checkpoints of models on a mesh: killed and gone on from to the same bits, and loaded into any other strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.test_resume import expect_equal, kill_often, run, run_killed
from tests.helpers.nightly import nightly
from tests.helpers.once import once
from tests.strategies.test_hybrid_parallel import TOLERANCE
from tests.strategies.test_hybrid_parallel import run as run_program

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("options", "kill"),
    [
        ([], "1,8"),
        nightly(["--every_epoch", "--data=arrays", "--ema"], "2,5"),
        nightly(["--data=tfrecords"], "2,8"),
        nightly(["--embedding", "--steps_per_execution=5"], "2,9"),
    ],
)
def test_goes_on_to_the_same_bits(tmp_path: Path, options: list[str], kill: str) -> None:
    """Tensors and FSDP on 2 x 2 devices, with dropout, batch normalization, a shuffle and callbacks with a state."""
    run("hybrid", tmp_path / "whole", *options)
    run_killed("hybrid", tmp_path / "killed", *options, f"--kill={kill}")
    run("hybrid", tmp_path / "killed", *options)
    expect_equal("hybrid", tmp_path / "killed", tmp_path / "whole")


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Also in the middle of a file."""
    kill_often("hybrid", tmp_path, 8)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return load_all(tmp_path_factory.mktemp("checkpoints"))


@once
def load_all(folder: Path) -> dict[str, Any]:
    """Every pair, in three processes."""

    def steps(kind: str, *pairs: tuple[str, str]) -> list[str]:
        return [f"{kind}:{strategy}:{folder / source}" for source, strategy in pairs]

    program, found = "hybrid_parallel_checkpoints", {}
    run_program(program, steps("save", ("mirrored", "mirrored"), ("one_device", "one_device")), folder)
    others = [("mesh", "zero1"), ("mesh", "tensor"), ("mesh", "one_device"), ("mirrored", "mesh")]
    others += [("one_device", "mesh")]
    found |= run_program(program, steps("save", ("mesh", "mesh")) + steps("load", *others), folder)
    return found | run_program(program, steps("load", ("mesh", "mirrored")), folder)


@pytest.mark.parametrize(
    "pair", ["mesh-zero1", "mesh-tensor", "mesh-one_device", "mesh-mirrored", "mirrored-mesh", "one_device-mesh"]
)
def test_goes_on_under_another_strategy(loaded: dict[str, Any], pair: str) -> None:
    """From the middle of an epoch, with its metrics; what is loaded is the same to the bit."""
    found = loaded[pair]
    assert found["moved"] > 1e-3, "training changed nothing"
    assert (found["loaded"], found["weights alone"]) == (0.0, 0.0)
    assert found["ended"] < TOLERANCE
