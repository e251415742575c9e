"""Models that are split over a mesh of several processes give what one device gives."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cluster_runner import run_python
from tests.strategies.test_hybrid_parallel import check

#: Of two processes with two devices each: of rows, tensors and FSDP, each within processes and between them.
CHOSEN = ["mlp-fsdp_tensor-adam", "mlp-tensor_fsdp-accumulating", "cnn-data_tensor-momentum"]
SPLITS = ("data", "tensor", "data_tensor", "tensor_data", "fsdp", "zero1", "fsdp_tensor", "tensor_fsdp")
MODELS = ("mlp-adam", "mlp-adafactor", "cnn-momentum", "transformer-adamw", "transformer-accumulating")
ALL = [model.replace("-", f"-{split}-") for model, split in itertools.product(MODELS, SPLITS)]
ALL += ["embedding-vocabulary-adam", "embedding-fsdp_tensor-momentum"]
#: Of four processes with one device each.
SINGLE = ["mlp-tensor_fsdp-adam", "mlp-fsdp_tensor-momentum", "cnn-fsdp-adam", "transformer-tensor-adamw"]


def run(cells: tuple[str, ...], workers: int, folder: Path) -> list[dict[str, Any]]:
    """What each worker found."""
    module = "tests.strategies.programs.hybrid_parallel_processes"
    run_python(["-m", module, str(folder), *cells], workers=workers, logs=folder / "logs", timeout_seconds=3000)
    return [json.loads((folder / f"{worker}.json").read_text()) for worker in range(workers)]


def check_all(found: list[dict[str, Any]], cells: tuple[str, ...]) -> None:
    """Against one device, within what sums in another order make; workers among themselves bit by bit."""
    for cell in cells:
        chief, *others = (worker[cell] for worker in found)
        digest = chief.pop("hash")
        check(chief)
        assert [other["hash"] for other in others] == [digest] * len(others), "all workers see the same"


@pytest.mark.cluster
def test_two_processes_equal_one_device(tmp_path: Path) -> None:
    check_all(run(tuple(CHOSEN), 2, tmp_path), tuple(CHOSEN))


@pytest.mark.nightly
@pytest.mark.cluster
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer", "embedding"])
def test_all_combinations_on_two_processes_equal_one_device(tmp_path: Path, model: str) -> None:
    cells = tuple(cell for cell in ALL if cell.startswith(model))
    check_all(run(cells, 2, tmp_path), cells)


@pytest.mark.nightly
@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_four_processes_equal_one_device(tmp_path: Path) -> None:
    check_all(run(tuple(SINGLE), 4, tmp_path), tuple(SINGLE))
