"""Models that are split over a mesh of four logical CPUs give what one device gives."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cluster_runner import run_python
from tests.helpers.once import once

#: Float32 rounding of sums in another order, over six steps; absolute, or relative where the value is above 1.
TOLERANCE = 1e-5

MODELS = ("mlp", "cnn", "transformer", "embedding")
SPLITS = ("data", "tensor", "data_tensor", "fsdp", "zero1", "fsdp_tensor")
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "adafactor", "accumulating")
#: Also the rows of an embedding over the model axis.
ALL = [f"embedding-vocabulary-{optimizer}" for optimizer in OPTIMIZERS]
ALL += ["-".join(cell) for cell in itertools.product(MODELS, SPLITS, OPTIMIZERS)]
#: Each model with each kind of splitting that keeps something for itself, each optimizer with each of those.
CHOSEN = [
    *("mlp-data-adafactor", "mlp-data_tensor-adam", "mlp-zero1-adamw", "mlp-fsdp_tensor-accumulating"),
    *("cnn-tensor-sgd", "cnn-fsdp_tensor-adam"),
    *("transformer-data_tensor-adafactor", "transformer-fsdp_tensor-adam"),
    *("embedding-tensor-sgd", "embedding-fsdp-adam", "embedding-fsdp_tensor-momentum"),
    *("embedding-vocabulary-adam", "embedding-data_tensor-adafactor"),
]


def run(program: str, arguments: Iterable[str], folder: Path, workers: int = 0) -> dict[str, Any]:
    """What a program of tests/strategies/programs found; with workers, the chief."""
    output = folder / "found.json"
    arguments = ["-m", f"tests.strategies.programs.{program}", str(output), *arguments]
    run_python(arguments, workers=workers, logs=folder / "logs", timeout_seconds=1500)
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def compared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Differences of the cells that are asked for."""
    asked = [item.callspec.params["cell"] for item in request.session.items if "cell" in _params(item)]
    return compare(tuple(asked), tmp_path_factory.mktemp("cells"))


def _params(item: Any) -> dict[str, Any]:
    return getattr(getattr(item, "callspec", None), "params", {})


@once
def compare(cells: tuple[str, ...], folder: Path) -> dict[str, Any]:
    return run("hybrid_parallel", cells, folder)


def check(found: dict[str, float]) -> None:
    assert found["moved"] > 1e-3, "training changed nothing"
    assert found["first weights"] == 0.0, "the same numbers were drawn"
    assert {key: value for key, value in found.items() if key != "moved" and value > TOLERANCE} == {}


@pytest.mark.cluster
@pytest.mark.parametrize("cell", CHOSEN)
def test_equals_one_device(compared: dict[str, Any], cell: str) -> None:
    check(compared[cell])


@pytest.mark.nightly
@pytest.mark.cluster
@pytest.mark.timeout(1800)  # the first runs them all
@pytest.mark.parametrize("cell", ALL)
def test_all_combinations_equal_one_device(compared: dict[str, Any], cell: str) -> None:
    check(compared[cell])


@pytest.mark.cluster
def test_without_the_switch_slots_are_stale(tmp_path: Path) -> None:
    """DTensor's pass that combines all-reduces, which the strategy switches off, reads slots too early."""
    with_pass = run("hybrid_parallel_combined", [], tmp_path)["mlp-data_tensor-adam"]
    assert with_pass["weights"] > 1e-3
    assert with_pass["slots"] > 1e-3
