"""An embedding of 2 GB trains on chief and workers that have no room for it, and only the rows asked for travel."""

from __future__ import annotations

import json
import sys
from typing import Any

import psutil
import pytest

from tests.helpers.cluster_runner import run_python
from tests.strategies.programs.large_embedding import BATCH, IDS, ROWS, SLOT_ROWS, STEPS, WIDTH

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.cluster,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc and sock_diag are Linux's"),
]
#: 2 GB of rows, five processes of 0.6 GB that share much of it, and some air.
NEEDED_BYTES = 6 << 30


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program saw."""
    if psutil.virtual_memory().available < NEEDED_BYTES:
        pytest.skip(f"needs {NEEDED_BYTES >> 30} GB of free memory")
    folder = tmp_path_factory.mktemp("large")
    program = ["-m", "tests.strategies.programs.large_embedding", str(folder / "found.json")]
    run_python(program, workers=0, logs=folder / "logs")
    return json.loads((folder / "found.json").read_text())


def test_it_learns(found: dict[str, Any]) -> None:
    first, second, evaluated = found["losses"]
    assert first > 2 * second > 4 * evaluated
    assert found["predicted"] == pytest.approx(evaluated, rel=1e-4)
    first, second = found["losses_with_slots"]
    assert first > 1.1 * second


@pytest.mark.parametrize("job", ["chief", "worker"])
def test_chief_and_workers_hold_no_copy(found: dict[str, Any], job: str) -> None:
    assert [peak for peak in found["peaks_with_slots"][job] if peak > 1e9] == []


def test_a_ps_holds_its_shard_once(found: dict[str, Any]) -> None:
    shard = ROWS * WIDTH * 4 / 2
    assert [size for size in grown(found, "begun", "peaks") if not shard < size < 1.3 * shard] == []


def test_a_ps_holds_its_slots_once(found: dict[str, Any]) -> None:
    """Adagrad's accumulators are as large as the table."""
    shards = 2 * SLOT_ROWS * WIDTH * 4 / 2
    assert [size for size in grown(found, "peaks", "peaks_with_slots") if not size < 1.3 * shards] == []


def grown(found: dict[str, Any], first: str, second: str) -> list[int]:
    """By how many bytes the peak of each ps has risen meanwhile."""
    return [after - before for before, after in zip(found[first]["ps"], found[second]["ps"], strict=True)]


@pytest.mark.parametrize("direction", ["sent", "received"])
def test_only_rows_travel(found: dict[str, Any], direction: str) -> None:
    """From the ps the rows, to them the gradients, and beside them row numbers and what a call costs."""
    rows = STEPS * BATCH * IDS * WIDTH * 4
    assert rows < found[direction] < 1.2 * rows, f"{found[direction] / rows:.2f} times the rows"
