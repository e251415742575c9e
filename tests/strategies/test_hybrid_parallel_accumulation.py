"""Micro-batches that are added up on a mesh give what one device gives that adds them up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.nightly import nightly
from tests.helpers.once import once
from tests.strategies.test_hybrid_parallel import TOLERANCE, run

pytestmark = pytest.mark.cluster

REFUSED = {
    "refused-splits": r"Expected: AccumulationOptions with splits=1 under",
    "refused-twice": r"asked for twice.*gradient_accumulation_steps=2 on the optimizer",
    "refused-rows": r"Expected: dense gradients, or SGD without clipping.*'table/embeddings'",
}


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    cases = [item.callspec.params["case"] for item in request.session.items if item.module is request.module]
    return run_all(tuple(cases), tmp_path_factory.mktemp("cases"))


@once
def run_all(cases: tuple[str, ...], folder: Path) -> dict[str, Any]:
    return run("hybrid_parallel_accumulation", cases, folder)


@pytest.mark.parametrize(
    "case", ["clipped", "scaled", "embedding", nightly("adam"), nightly("skipped"), nightly("growing")]
)
def test_equals_one_device(found: dict[str, Any], case: str) -> None:
    """Of a last batch with fewer rows, too."""
    layouts, moved = found[case].pop("laid out"), found[case].pop("moved")
    assert moved > 1e-3, "training changed nothing"
    assert {key: value for key, value in found[case].items() if value > TOLERANCE} == {}
    assert len(layouts) > 0
    assert all(slot in ("", total) for total, slot in layouts)
    assert case != "adam" or all(slot for _, slot in layouts)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused(found: dict[str, Any], case: str) -> None:
    assert re.search(REFUSED[case], found[case])
