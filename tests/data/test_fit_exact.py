"""What two workers train on TFRecords equals what one device trains on the same global batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.programs import exact
from tests.helpers.cluster_runner import run_python
from tests.helpers.nightly import nightly


@pytest.mark.cluster
@pytest.mark.parametrize("options", [[], nightly(["--all"])])
def test_workers_that_read_shares_are_exact(tmp_path: Path, options: list[str]) -> None:
    for kind in exact.SPLITS:
        (tmp_path / kind).mkdir()
        exact.write(tmp_path, kind)
    arguments = ["-m", "tests.data.programs.exact", str(tmp_path), *options]
    run_python(arguments, workers=exact.WORKERS, logs=tmp_path / "logs")
    said = (tmp_path / "logs" / "0.log").read_text()
    assert said.count("exact:") == (15 if options else 7)
