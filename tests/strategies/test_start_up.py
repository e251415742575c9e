"""What is wrong with a job is said when it starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.warm_processes import QUIET
from tfdist.cluster.ports import HeldPorts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

ROOT = Path(__file__).parent.parent.parent
#: By its path: beside `-m` the working directory, with this checkout's version, would come first.
SCRIPT = [str(ROOT / "tests" / "strategies" / "programs" / "start_up.py")]
DEADLINE_SECONDS = 120.0


class Worker:
    """A worker process.

    Args:
        addresses: of all.
        index: this one's.
        script: what Python is to run.
        arguments: of the script.
        path: folders in front of others in Python's path.
    """

    def __init__(
        self, addresses: list[str], index: int, *arguments: str, script: list[str] = SCRIPT, path: str = ""
    ) -> None:
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        env = {**os.environ, **QUIET, "TF_CONFIG": json.dumps(task)}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [path, str(ROOT), env.get("PYTHONPATH", "")]))
        command = [sys.executable, *script, *(arguments or ["{}"])]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def said(self) -> str:
        return self.process.communicate(timeout=DEADLINE_SECONDS)[0]


@pytest.fixture
def workers():
    """Makes workers at free ports; ends those that are left."""
    started: list[Worker] = []
    with HeldPorts(3) as held:
        *addresses, third = [f"127.0.0.1:{port}" for port in held.ports]

        def start(index: int, *arguments: str, at: list[str] = addresses, **how) -> Worker:
            started.append(Worker(at, index, *arguments, **how))
            return started[-1]

        start.addresses, start.third = addresses, third
        yield start
    for worker in started:
        worker.process.kill()
        worker.process.wait(30)
        worker.process.stdout.close()


def test_workers_that_are_alike_meet(workers):
    for worker in [workers(0), workers(1)]:
        said = worker.said()
        assert worker.process.returncode == 0, said
        assert "all workers have met" in said
        assert "clock" not in said


def test_a_port_that_is_taken(workers):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        worker = workers(0, at=[taken, workers.addresses[1]])
        said = worker.said()
    assert worker.process.returncode == 1
    assert f"ClusterError: Expected: a port on which worker/0 can listen. Received: {taken}" in said
    assert "End the process that listens there" in said


def test_two_jobs_with_the_same_ports(workers):
    """The second one fails, the first one goes on."""
    first = workers(0)
    address = workers.addresses[0].rpartition(":")
    wait_for_server(address[0], int(address[2]))
    second = workers(0)
    assert "ClusterError: Expected: a port on which worker/0 can listen" in second.said()
    assert second.process.returncode == 1
    assert "all workers have met" in workers(1).said()
    assert "all workers have met" in first.said()


def wait_for_server(host: str, port: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            return socket.create_connection((host, port), 1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_worker_that_never_starts(workers):
    worker = workers(0, '{"start_timeout_seconds": 12}')
    said = worker.said()
    assert worker.process.returncode == 1
    missing = f"worker/1 at {workers.addresses[1]}"
    waiting, _, error = said.rpartition("ClusterError")
    assert f"waited 10 s for {missing}" in waiting, "it is said while it is waited for"
    assert error.startswith(": Expected: all 2 workers within 12 s. Received no sign of " + missing), said


def test_a_chief_that_never_starts(workers):
    worker = workers(1, '{"start_timeout_seconds": 12}')
    said = worker.said()
    assert worker.process.returncode == 1
    error = said.rpartition("ClusterError")[2]
    assert error.startswith(f": Expected: all 2 workers within 12 s. Received: worker/0: {workers.addresses[0]}"), said


def test_a_host_that_nobody_knows(workers):
    worker = workers(0, '{"start_timeout_seconds": 12}', at=[workers.addresses[0], "no-such-host.invalid:2222"])
    said = worker.said()
    assert worker.process.returncode == 1
    error = said.rpartition("ClusterError")[2]
    assert "worker/1 at no-such-host.invalid:2222, a host that is not known. Check the name" in error, said


def test_another_version(workers, tmp_path):
    """Of tfdist, as its installed files say."""
    other = tmp_path / "tfdist-9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: tfdist\nVersion: 9.9\n")
    for worker in [workers(0), workers(1, path=str(tmp_path))]:
        said = worker.said()
        assert worker.process.returncode == 1
        assert "WorkersDisagreeError: Workers do not agree on the tfdist version at the start" in said
        assert "worker 1 has 9.9" in said or "worker 0 has" in said


def test_another_script(workers, tmp_path):
    text = (ROOT / "tests/strategies/programs/start_up.py").read_text()
    edited = tmp_path / "start_up.py"
    edited.write_text(text + "\n# edited\n")
    for worker in [workers(0), workers(1, script=[str(edited)])]:
        said = worker.said()
        assert worker.process.returncode == 1
        assert "Workers do not agree on the script at the start" in said


def test_another_token(workers, monkeypatch):
    monkeypatch.setenv("TFDIST_JOB_TOKEN", "one")
    chief = workers(0, '{"start_timeout_seconds": 12}')
    monkeypatch.setenv("TFDIST_JOB_TOKEN", "other")
    said = workers(1).said()
    assert "ClusterError: Expected: the job's token in TFDIST_JOB_TOKEN. Received: another" in said
    assert "Received no sign of worker/1" in chief.said()


def test_two_tasks_that_are_the_same_worker(workers):
    """Of three workers one is missing, and one is there twice."""
    with HeldPorts(3) as held:
        addresses = [f"127.0.0.1:{port}" for port in held.ports]
        workers(0, at=addresses)
        both = [workers(1, at=addresses) for _ in range(2)]
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not (ended := [worker for worker in both if worker.process.poll() is not None]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert "ClusterError: Expected: one task that is worker/1. Received: two." in ended[0].said()
    assert len(ended) == 1


def test_a_program_that_listens_in_place_of_the_chief(workers):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        worker = workers(1, '{"start_timeout_seconds": 12}', at=[taken, workers.addresses[1]])
        said = worker.said()
    assert f"what listens at {taken} is no chief that waits for workers" in said.rpartition("ClusterError")[2]


def test_a_worker_that_is_started_again_while_others_are_waited_for(workers):
    three = [*workers.addresses, workers.third]
    chief, first = workers(0, at=three), workers(1, at=three)
    wait_for_call(first)
    first.process.kill()
    first.process.wait(DEADLINE_SECONDS)
    for worker in [workers(1, at=three), workers(2, at=three), chief]:
        assert "all workers have met" in worker.said()


def wait_for_call(worker: Worker) -> None:
    """Until it has called the chief."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    process = psutil.Process(worker.process.pid)
    while not any(connection.status == psutil.CONN_ESTABLISHED for connection in process.net_connections()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_clocks_that_are_apart(workers):
    chief, other = workers(0), workers(1, "{}", "100")
    assert other.process.wait(DEADLINE_SECONDS) == 0
    assert "the clock of worker 1 is 100 s ahead of the chief's" in chief.said()
    assert chief.process.returncode == 0


@pytest.mark.parametrize(
    "name", ["peer_timeout_seconds", "heartbeat_timeout_seconds", "start_timeout_seconds", "stall_seconds"]
)
def test_times_that_are_none(workers, name):
    worker = workers(0, json.dumps({name: 0}))
    assert f"ValueError: Expected: a number of seconds above 0. Received: {name}=0" in worker.said()
