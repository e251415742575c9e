"""Random layers differ between replicas and repeat with the seed; statistics agree on all workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.cluster_runner import run_python
from tests.helpers.setups import WORKERS


@pytest.mark.cluster
@pytest.mark.parametrize("setup", ["mirrored2", "workers2"])
def test_masks_and_statistics(setup: str, tmp_path: Path) -> None:
    run_python(["-m", "tests.strategies.programs.replicas", setup], workers=WORKERS[setup], logs=tmp_path)
    assert "AutoGraph" not in (tmp_path / "0.log").read_text()
