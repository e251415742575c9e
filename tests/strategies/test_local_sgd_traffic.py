"""What crosses the wire under LocalSGDStrategy: the model once in H steps, and nothing in the steps between."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers.cluster_runner import run_python

pytestmark = pytest.mark.cluster

#: 64 x 512, twice 512 x 512, 512 x 1 and their biases, float32. In a ring of two, a worker sends it once an all-reduce.
MODEL_BYTES = 4 * (64 * 512 + 2 * 512 * 512 + 512 + 3 * 512 + 1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the chief counted in an epoch."""
    folder = tmp_path_factory.mktemp("traffic")
    run_python(["-m", "tests.strategies.programs.local_sgd_traffic", str(folder)], workers=2, logs=folder / "logs")
    return json.loads((folder / "0.json").read_text())


@pytest.mark.parametrize("averagings", [16, 4, 1])
def test_bytes_fall_with_the_number_of_averagings(measured, averagings: int) -> None:
    """Metrics, counts and what gRPC says around them are less than 5% of a model of 2.2 MB."""
    assert measured[f"{averagings} exact"]["bytes"] == pytest.approx(averagings * MODEL_BYTES, rel=0.05)


@pytest.mark.parametrize(("name", "models"), [("4 bfloat16", 2), ("4 int8", 1), ("4.5 in fragments", 4.5)])
def test_bytes_of_compressed_changes_and_of_fragments(measured, name: str, models: float) -> None:
    assert measured[name]["bytes"] == pytest.approx(models * MODEL_BYTES, rel=0.05)


def test_steps_between_averagings_send_nothing(measured) -> None:
    """Metrics of an epoch's first step and of its end, and one averaging, whether it has 16 steps or 32."""
    assert measured["1 of more steps"]["collectives"] == measured["1 exact"]["collectives"] > 0
