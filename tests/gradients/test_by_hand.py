"""Weighting and reduction against numbers worked out by hand, in real replicas."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.cluster_runner import run_python


@pytest.mark.unit
def test_replicas_with_unequal_rows(tmp_path: Path) -> None:
    run_python(["-m", "tests.gradients.programs.by_hand"], workers=0, logs=tmp_path)
    assert (tmp_path / "0.log").read_text().count("as by hand") == 7
