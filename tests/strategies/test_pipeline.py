"""Models in stages: what one device gives, on devices that hold and do what they should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.cluster_runner import run_python

PROGRAM = "tests.strategies.programs"
#: With what each of them is alone in showing.
EVERY_CHANGE = [
    "momentum, seven micro-batches, four stages",
    "cnn, clipped",
    "transformer, clipped, four stages",
    "regularizers",
    "executions of three",
    "two pipelines",
]
AT_NIGHT = [
    "one whole batch",
    "sgd",
    "transformer, more micro-batches than rows",
    "averaged weights",
    "loss scale",
    "shared and nested layers",
    "recurrent, masked",
    "batch normalization, one micro-batch",
    "eagerly",
    "own logs",
    "two pipelines, transformer",
    "two pipelines, one whole batch",
    "two pipelines, regularizers",
    "two pipelines, shared and nested layers",
    "two pipelines, synchronized normalization",
    "two pipelines, executions of three",
    "two pipelines, eagerly",
    "two pipelines, own logs",
]


@pytest.mark.cluster
def test_equal_to_one_device(tmp_path: Path) -> None:
    run_python(["-m", f"{PROGRAM}.pipeline", *EVERY_CHANGE], workers=0, logs=tmp_path)


@pytest.mark.cluster
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_more_is_equal_to_one_device(tmp_path: Path) -> None:
    run_python(["-m", f"{PROGRAM}.pipeline", *AT_NIGHT], workers=0, logs=tmp_path, timeout_seconds=880)


@pytest.mark.cluster
@pytest.mark.nightly
def test_stages_in_processes_of_their_own(tmp_path: Path) -> None:
    """As in docs/pipeline.md, smaller."""
    options = ["--width=64", "--batch_size=64", "--rounds=1"]
    run_python(["benchmarks/pipeline.py", *options], workers=0, logs=tmp_path)
    counts = re.findall(r"^ +(\d) ", (tmp_path / "0.log").read_text(), re.MULTILINE)
    assert counts == ["1", "2", "4", "8"]


@pytest.mark.cluster
def test_devices_memory_files_and_errors(tmp_path: Path) -> None:
    run_python(["-m", f"{PROGRAM}.pipeline_parts", str(tmp_path)], workers=0, logs=tmp_path / "logs")


@pytest.mark.cluster
def test_pipelines_side_by_side(tmp_path: Path) -> None:
    run_python(["-m", f"{PROGRAM}.pipelines", str(tmp_path)], workers=0, logs=tmp_path / "logs")
    run_python(["-m", f"{PROGRAM}.served", str(tmp_path)], workers=0, logs=tmp_path / "served_logs")
