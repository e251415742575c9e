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

PIPELINES = [
    "test_copies_are_on_each_pipelines_devices_and_equal_to_the_bit",
    "test_a_pipeline_computes_on_its_own_devices_and_sends_each_gradient_once",
    "test_the_timeline_is_that_of_the_schedule",
]
PIPELINES_AT_NIGHT = [
    "test_predictions_and_evaluations_are_shared_by_the_pipelines",
    "test_statistics_are_of_micro_batches_averaged_over_pipelines",
    "test_a_loop_of_ones_own",
    "test_a_checkpoint_and_files_go_to_one_pipeline_and_back",
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
    run_python(["-m", f"{PROGRAM}.pipelines", str(tmp_path), *PIPELINES], workers=0, logs=tmp_path / "logs")


@pytest.mark.cluster
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_more_of_pipelines_side_by_side(tmp_path: Path) -> None:
    """The last one leaves what the second program loads."""
    for index, args in enumerate((["pipelines", str(tmp_path), *PIPELINES_AT_NIGHT], ["served", str(tmp_path)])):
        command = ["-m", f"{PROGRAM}.{args[0]}", *args[1:]]
        run_python(command, workers=0, logs=tmp_path / f"logs{index}", timeout_seconds=440)
