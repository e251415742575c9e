"""What can't work is refused with a remedy, before the first step and never by a hang."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import tfdist
from tests.helpers.cluster_runner import ClusterFailed, run_python
from tests.helpers.setups import WORKERS
from tfdist.errors import ClusterError
from tfdist.updates import Synchronous

PROGRAMS = "tests.strategies.programs"


@pytest.mark.cluster
@pytest.mark.parametrize("setup", ["mirrored2", "workers2"])
def test_mixed_up_use(setup: str, tmp_path: Path) -> None:
    run_python(["-m", f"{PROGRAMS}.refusals", setup], workers=WORKERS[setup], logs=tmp_path)
    assert (tmp_path / "0.log").read_text().count(" refused") == 9


@pytest.mark.cluster
@pytest.mark.parametrize(
    "fact",
    [
        *("weights", "weights a callback loaded", "call", "optimizer", "gradient accumulation"),
        *("number of batches", "model", "input", "batch size"),
    ],
)
def test_workers_that_differ(fact: str, tmp_path: Path) -> None:
    run_python(["-m", f"{PROGRAMS}.disagreement", fact], workers=2, logs=tmp_path, timeout_seconds=120)
    for rank in range(2):
        text = (tmp_path / f"{rank}.log").read_text()
        named = fact.removesuffix(" a callback loaded") + (" '[a-z0-9_/]+'" if fact.startswith("weights") else "")
        assert re.search(f"REFUSED Workers do not agree on the {named} at", text)
        assert "worker 0 has" in text
        assert "worker 1 has" in text


@pytest.mark.cluster
def test_workers_with_other_layers_do_not_hang(tmp_path: Path) -> None:
    """One worker waits for variables that the other doesn't make; the other gives it up, and so the job."""
    with pytest.raises(ClusterFailed):
        run_python(["-m", f"{PROGRAMS}.disagreement", "layers"], workers=2, logs=tmp_path, timeout_seconds=120)
    texts = [(tmp_path / f"{rank}.log").read_text() for rank in range(2)]
    assert any("REFUSED Expected: worker" in text or "Shape mismatch" in text for text in texts), texts


@pytest.mark.cluster
def test_a_strategy_made_too_late(tmp_path: Path) -> None:
    code = "import tensorflow as tf, tfdist; tf.ones(1); tfdist.MultiWorkerMirroredStrategy()"
    with pytest.raises(ClusterFailed, match=r"before its first operation.*Make the strategy first"):
        run_python(["-c", code], workers=2, logs=tmp_path, timeout_seconds=120)


def address(port: int) -> list[str]:
    return [f"127.0.0.1:{port}"]  # nobody listens there, and nobody asks


@pytest.mark.unit
@pytest.mark.parametrize(
    ("jobs", "missing"),
    [
        ({"chief": address(1), "worker": address(2)}, "without ps "),
        ({"chief": address(1), "ps": address(3)}, "without worker "),
        ({"worker": address(1), "ps": address(3)}, "without chief "),
        ({"worker": address(1)}, "without chief and ps "),
    ],
    ids=["no ps", "no worker", "no chief", "only a worker"],
)
def test_parameter_servers_need_all_kinds_of_tasks(jobs: dict[str, list[str]], missing: str) -> None:
    cluster = tfdist.cluster.Cluster(jobs, tfdist.cluster.Task(next(iter(jobs)), 0))
    with pytest.raises(ClusterError, match=rf"Received: a cluster {missing}.*tfdist launch --workers=2 --ps=1"):
        tfdist.ParameterServerStrategy(cluster)


@pytest.mark.unit
def test_parameter_servers_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ClusterError, match=r"tfdist\.cluster\.local\(workers=2, ps=1\)"):
        tfdist.ParameterServerStrategy()


@pytest.mark.unit
@pytest.mark.parametrize("task", ["chief", "worker", "ps"])
@pytest.mark.parametrize("option", [{"max_in_flight": 0}, {"max_in_flight": -1}, {"data": "chief"}], ids=str)
def test_options_of_parameter_servers(option: dict[str, Any], task: str) -> None:
    """On every task, so that none serves a chief that was refused."""
    jobs = {"chief": address(1), "worker": address(2), "ps": address(3)}
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"Received: {name}={value!r}"):
        tfdist.ParameterServerStrategy(tfdist.cluster.Cluster(jobs, tfdist.cluster.Task(task, 0)), **option)


@pytest.mark.unit
@pytest.mark.parametrize("task", ["chief", "worker", "ps"])
@pytest.mark.parametrize(
    ("update", "max_in_flight", "text"),
    [
        (Synchronous(), 2, "Expected: max_in_flight of at least 3.*Received: max_in_flight=2. Leave it out"),
        (Synchronous(3), None, "at most 2 can be backup workers. Received: backup_workers=3"),
    ],
    ids=["too few in flight", "too many backup workers"],
)
def test_synchronous_steps_on_parameter_servers(update: Any, max_in_flight: int | None, text: str, task: str) -> None:
    workers = [one for port in (2, 4, 5) for one in address(port)]
    jobs = {"chief": address(1), "worker": workers, "ps": address(3)}
    cluster = tfdist.cluster.Cluster(jobs, tfdist.cluster.Task(task, 0))
    with pytest.raises(ValueError, match=text):
        tfdist.ParameterServerStrategy(cluster, update=update, max_in_flight=max_in_flight)
