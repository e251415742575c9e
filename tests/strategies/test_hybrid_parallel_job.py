"""What two workers of a mesh read, write and say, started by `tfdist launch`; and what is left when one is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cluster_runner import exit_codes
from tests.helpers.lost_workers import lose
from tests.helpers.warm_processes import QUIET

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """By worker."""
    folder = tmp_path_factory.mktemp("job")
    module = ["-m", "tests.strategies.programs.hybrid_parallel_job", str(folder)]
    command = [sys.executable, "-m", "tfdist", "launch", "--workers=2", *module]
    env = {**os.environ, **QUIET}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads((folder / f"{worker}.json").read_text()) for worker in range(2)]


@pytest.mark.parametrize("worker", [0, 1])
def test_each_process_reads_the_rows_of_its_devices(found: list[dict[str, Any]], worker: int) -> None:
    """Half of each batch where rows are split between processes, else all; the last batch has three."""
    records = found[worker]["records"]
    assert records["rows by rows"] == records["rows of runs"] == [5, 5, 5, 5, 5, 1 + worker]
    assert records["rows by columns"] == [10, 10, 10, 10, 10, 3]
    assert "Expected: data for ShardOptions(num_shards=1, index=0)" in records["another share"]
    rows = found[worker]["own_rows"]
    assert rows["even"] == [[0, 1], [2, 3]][worker]
    assert rows["last"] == [[4], [5]][worker]
    assert rows["odd"] == [0, 1, 2], "what can't be split evenly is on both"
    assert rows["uneven"] == [[0, 1, 2, 10, 11], [3, 4, 5]], "as are shares that are no halves"


@pytest.mark.parametrize("fact", ["by rows", "by columns", "runs"])
def test_records_train_as_on_one_device(found: list[dict[str, Any]], fact: str) -> None:
    for worker in found:
        assert worker["records"][fact] < TOLERANCE


@pytest.mark.parametrize("method", ["on batch", "predict on batch", "run"])
@pytest.mark.parametrize("split", ["rows", "columns"])
def test_one_batch_is_as_on_one_device(found: list[dict[str, Any]], method: str, split: str) -> None:
    for worker in found:
        assert worker["one_batch"][f"{method}, by {split}"] < TOLERANCE


@pytest.mark.parametrize("file", ["plain", "weights", "best", "goes on"])
def test_the_chief_writes_plain_keras_files(found: list[dict[str, Any]], file: str) -> None:
    """Of kernels whose halves are on two processes; loaded by plain Keras, under another mesh, and to go on."""
    assert [worker["files"][file] for worker in found] == [0.0, 0.0]


SAID = {
    "mesh": "Workers do not agree on the mesh at HybridParallelStrategy()",
    "layouts": "Workers do not agree on the layouts at HybridParallelStrategy()",
    "ZeRO stage": "Received: worker 0 has 0, worker 1 has 3",
    "global seed": "Workers do not agree on the global seed at fit",
    "weights": "part [0:3,0:3], at fit. Expected: the same on every worker. Received: worker 0 has fingerprint",
    "batch size": "Workers do not agree on the number of batches at fit",
    "alone": "Expected: worker 1 to reach the saving of",
}


@pytest.mark.parametrize("mistake", SAID)
def test_workers_that_differ_are_told_in_what(found: list[dict[str, Any]], mistake: str) -> None:
    assert found[0]["disagreements"][mistake].startswith("WorkersDisagreeError")
    assert SAID[mistake] in found[0]["disagreements"][mistake]


def test_another_mesh_is_said_before_workers_are_connected(tmp_path: Path) -> None:
    """Where workers meet for the first time."""
    program = "import os, tfdist; tfdist.HybridParallelStrategy({'ab'['\"index\": 1' in os.environ['TF_CONFIG']]: 2})"
    assert exit_codes(["-c", program], workers=2, logs=tmp_path) == [1, 1]
    for worker in range(2):
        said = (tmp_path / f"{worker}.log").read_text()
        assert "Workers do not agree on the mesh at the start" in said, said[-3000:]
        assert "worker 0 has {'a': 2}, worker 1 has {'b': 2}" in said


FAULTS = {
    "kill": "worker 1 was killed: its process has ended without a word",
    "fail": "worker 1 failed with ValueError: a bad batch",
    "stop_training": "worker 1 has come to the end of an epoch after 6 executions",
    "stop": "worker 1 has said nothing for",
}


@pytest.mark.parametrize(
    "fault",
    ["kill", *(pytest.param(fault, marks=pytest.mark.nightly) for fault in ("fail", "stop_training", "stop"))],
)
@pytest.mark.parametrize("axis", ["batch", pytest.param("model", marks=pytest.mark.nightly)])
def test_a_lost_worker_is_named(tmp_path: Path, fault: str, axis: str) -> None:
    options = {"strategy": "HybridParallelStrategy", "mesh": {axis: 2}, "heartbeat_timeout_seconds": 10.0}
    options |= {"layout_map": {".*kernel": ["model", None]}} if axis == "model" else {}
    (survivor,) = lose(tmp_path, fault, 1, workers=2, options=options)
    print(f"{fault}: {survivor.seconds:.1f} s")
    assert survivor.code == 1, survivor.said[-3000:]
    assert FAULTS[fault] in survivor.said.rpartition("TaskLostError")[2], survivor.said[-3000:]
