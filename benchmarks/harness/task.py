"""What a process of a contender is told, and how it answers. Needs the standard library only, for any Python."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: The variable of the environment with a task's description, as JSON.
VARIABLE = "TFDIST_BENCH_TASK"
#: Index of a task that finds its own in one of these variables, which mpiexec sets.
RANKS = -1
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")


@dataclasses.dataclass(frozen=True)
class Task:
    """One process of a job.

    Args:
        control: path of the socket on which requests come.
        index: of this process in the job.
        addresses: host:port of all processes, this one's too.
        kinds: of all processes: "worker", "chief" or "ps".
        cores: on which each of them runs.
        interface: of the network between the processes; "" for loopback.
        started: when the process was started, by `time.monotonic`.
        options: what the contender is to do.
    """

    control: str
    index: int
    addresses: list[str]
    kinds: list[str]
    cores: list[list[int]]
    interface: str
    started: float
    options: dict[str, Any]

    @classmethod
    def from_environment(cls) -> Task:
        """Of this process."""
        values = json.loads(os.environ[VARIABLE])
        if values["index"] == RANKS:
            values["index"] = int(next(os.environ[name] for name in _RANK_VARIABLES if name in os.environ))
        return cls(**values)

    @property
    def own_cores(self) -> list[int]:
        """On which this process runs."""
        return self.cores[self.index]

    @property
    def workers(self) -> int:
        """How many processes train."""
        return self.kinds.count("worker")

    def seconds_since_start(self) -> float:
        """Since this process was asked for."""
        return time.monotonic() - self.started

    def tf_config(self) -> str:
        """TF_CONFIG of this process; "" for one that is alone."""
        if len(self.addresses) == 1:
            return ""
        cluster: dict[str, list[str]] = {}
        places = []
        for kind, address in zip(self.kinds, self.addresses, strict=True):
            places.append({"type": kind, "index": len(cluster.setdefault(kind, []))})
            cluster[kind].append(address)
        return json.dumps({"cluster": cluster, "task": places[self.index]})


#: Does what a request asks for and returns what it measured.
Measure = Callable[[dict[str, Any]], dict[str, Any]]


def serve(prepare: Callable[[Task], Measure]) -> None:
    """Answer requests until there are no more.

    Args:
        prepare: imports the libraries and makes what is measured.
    """
    task = Task.from_environment()
    # Before libraries are imported: they count the cores.
    os.sched_setaffinity(0, task.own_cores)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(task.control)
        stream = connection.makefile("rw")

        def say(value: dict[str, Any]) -> None:
            stream.write(json.dumps(value) + "\n")
            stream.flush()

        say({"index": task.index})
        measure = prepare(task)
        say({"ready": True})
        for request in _requests(stream):
            say(measure(request))
    # Libraries wait for peers at exit, which may be gone.
    os._exit(0)


def _requests(lines: Any) -> Iterator[dict[str, Any]]:
    for line in lines:
        yield json.loads(line)


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key + ":"))) * 1024
