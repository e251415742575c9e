"""A step that takes far longer than usual: the log says who is waited for, and what that worker does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.lost_workers import lose
from tests.strategies.programs.lost_workers import SLEEP_SECONDS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

OPTIONS = {"stall_seconds": SLEEP_SECONDS / 4}


def test_a_worker_that_does_something_else_is_named_with_its_stack(tmp_path: Path) -> None:
    for survivor in lose(tmp_path, "sleep_well", 1, options=OPTIONS):
        assert survivor.code == 0, "a stall stops nothing"
        report = survivor.said.partition(f"worker {survivor.worker}: step ")[2]
        assert "It waits for worker 1:" in report, survivor.said[-3000:]
        assert "in sleep_well" in report
        assert "usually" in report.partition("It waits")[0]


def test_a_worker_that_waits_for_its_input_is_shown(tmp_path: Path) -> None:
    """It is in the step like all others; the thread that makes its batches is on its stack."""
    for survivor in lose(tmp_path, "wait_for_input", 1, options=OPTIONS):
        assert survivor.code == 0
        assert "All workers are in it" in survivor.said, survivor.said[-3000:]
        assert "in make_slow_batches" in survivor.said
