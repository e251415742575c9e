"""A real cluster of several processes on this machine, for as long as a context lasts.

Each worker and ps is a child process that runs a tf.distribute.Server and nothing else; the caller
is the chief, which sends them work (ParameterServerStrategy, ClusterCoordinator).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tfdist.cluster.address import Address
from tfdist.cluster.lifeline import Lifeline, kill_group
from tfdist.cluster.ports import HeldPorts
from tfdist.cluster.spec import Cluster
from tfdist.cluster.task import Task
from tfdist.errors import ClusterError

# TensorFlow takes 2.5 s to start alone on 2 cores; this is for many of them on a busy machine.
START_SECONDS = 120.0
_HOST = "127.0.0.1"
# By name, since it knows all that a worker may be asked to run, and so is above this folder.
_SERVER = "tfdist.coordination.server"
_LOOK_EVERY_SECONDS = 0.05
_TAIL_LINES = 15


@contextlib.contextmanager
def local(
    workers: int = 2,
    ps: int = 0,
    *,
    cpus_per_worker: int = 1,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float = START_SECONDS,
) -> Iterator[Cluster]:
    """Gives a cluster whose workers and ps run on this machine, with the caller as its chief.

    All of them answer when the context is entered, and are gone when it ends or when this process
    dies, however it dies. The chief's own port is held free for the caller.

    Args:
        workers: Worker processes, at least 1.
        ps: Parameter server processes.
        cpus_per_worker: Devices to cut each worker's CPU into, to try several replicas a worker without GPUs.
        env: Environment variables for them, over those of this process.
        timeout_seconds: How long they may take to start.

    Raises:
        ClusterError: If a number is out of range or a server doesn't start.

    Example:
        >>> with tfdist.cluster.local(workers=2, ps=1) as cluster:
        ...     strategy = tfdist.ParameterServerStrategy(cluster)
    """
    _check(workers, ps, cpus_per_worker)
    with HeldPorts(1 + workers + ps) as held:
        cluster = _describe(held.ports, workers)
        with tempfile.TemporaryDirectory(prefix="tfdist-") as logs, _lifeline() as lifeline:
            held.release_for_servers()
            servers = _start(cluster, lifeline, Path(logs), env or {}, cpus_per_worker)
            try:
                _wait_until_all_answer(cluster, servers, Path(logs), timeout_seconds)
                yield cluster
            finally:
                _stop(list(servers.values()), lifeline)


def _check(workers: int, ps: int, cpus_per_worker: int) -> None:
    if workers < 1:
        raise ClusterError(f"A local cluster needs a worker. Received: workers={workers}. Write workers=2.")
    if ps < 0:
        raise ClusterError(f"A local cluster has 0 or more ps tasks. Received: ps={ps}. Leave ps out for none.")
    if cpus_per_worker < 1:
        received = f"Received: cpus_per_worker={cpus_per_worker}"
        raise ClusterError(f"A worker has 1 or more CPU devices. {received}. Leave it out for one.")


def _describe(ports: Sequence[int], workers: int) -> Cluster:
    chief, *rest = (str(Address(_HOST, port)) for port in ports)
    jobs = {"chief": [chief], "worker": rest[:workers], "ps": rest[workers:]}
    return Cluster(jobs, Task("chief", 0))


@contextlib.contextmanager
def _lifeline() -> Iterator[Lifeline]:
    lifeline = Lifeline()
    try:
        yield lifeline
    finally:
        lifeline.close()


def _start(
    cluster: Cluster, lifeline: Lifeline, logs: Path, env: Mapping[str, str], cpus_per_worker: int
) -> dict[Task, subprocess.Popen[bytes]]:
    servers = {}
    for task in cluster.peers:
        with open(_log(logs, task), "wb") as log:
            servers[task] = lifeline.start(
                [sys.executable, "-m", _SERVER, str(cpus_per_worker if task.type == "worker" else 1)],
                env=_environment(cluster.at(task), env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    return servers


def _environment(cluster: Cluster, env: Mapping[str, str]) -> dict[str, str]:
    defaults = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # Several processes share the GPUs, where there are any: none may take all the memory.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    # A parameter server holds variables in main memory; it must not occupy a GPU.
    own = {"CUDA_VISIBLE_DEVICES": "-1"} if cluster.task.type == "ps" else {}
    return {**defaults, **os.environ, **own, **env, "TF_CONFIG": cluster.to_tf_config()}


def _wait_until_all_answer(
    cluster: Cluster,
    servers: Mapping[Task, subprocess.Popen[bytes]],
    logs: Path,
    timeout_seconds: float,
) -> None:
    deadline = time.monotonic() + timeout_seconds
    for task, address in cluster.peers.items():
        while not Address.parse(address).listens():
            code = servers[task].poll()
            if code is not None:
                raise ClusterError(f"The server of {task} ended with exit code {code}.\n{_tail(logs, task)}")
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"The server of {task} must answer in time. Received: timeout_seconds="
                    f"{timeout_seconds}. Raise it, or start fewer tasks.\n{_tail(logs, task)}"
                )
            time.sleep(_LOOK_EVERY_SECONDS)


def _stop(servers: Sequence[subprocess.Popen[bytes]], lifeline: Lifeline) -> None:
    # A server has nothing to save, and doesn't react to gentler signals while it's starting.
    for server in servers:
        kill_group(server.pid)
    for server in servers:
        server.wait()
        lifeline.forget(server)


def _log(logs: Path, task: Task) -> Path:
    return logs / f"{task.type}-{task.index}.log"


def _tail(logs: Path, task: Task) -> str:
    lines = _log(logs, task).read_text(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])
