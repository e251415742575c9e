"""Metrics are added up over the workers as often as somebody on any of them looks at them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.helpers.cluster_runner import run_python
from tests.strategies.programs.collectives_a_step import STEPS

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two workers kept."""
    folder = tmp_path_factory.mktemp("collectives")
    run_python(["-m", "tests.strategies.programs.collectives_a_step", str(folder)], workers=2, logs=folder / "logs")
    return [json.loads((folder / f"{index}.json").read_text()) for index in range(2)]


@pytest.mark.parametrize(
    ("case", "expected"), [("read", 3), ("read by one", 3), ("not read", 2), ("a line an epoch", 2), ("own log", 4)]
)
def test_collectives_of_a_step(found, case: str, expected: int) -> None:
    """One for the loss' divisor, one for all gradients, one for metrics that are looked at, one for other logs."""
    for worker in found:
        assert worker[case]["a step"] == expected


@pytest.mark.parametrize("case", ["read by one", "not read", "a line an epoch"])
def test_an_epochs_logs_are_the_same(found, case: str) -> None:
    for worker in found:
        assert worker[case]["history"] == found[0]["read"]["history"]
        assert all(math.isfinite(one) for epoch in worker[case]["history"] for one in epoch["loss"])


def test_a_reader_sees_each_batch(found) -> None:
    for worker in found:
        assert len(worker["seen"]) == 3 * STEPS + 1
        assert worker["seen"] == found[0]["seen"]
        seen = worker["seen after a fit that nobody read"]
        assert len(seen) == STEPS
        assert all(math.isfinite(value) for logs in [*seen, *worker["seen"]] for value in logs.values())


def test_a_step_is_traced_no_more_often(found) -> None:
    for worker in found:
        assert worker["not read"]["traces"] == worker["read"]["traces"]
