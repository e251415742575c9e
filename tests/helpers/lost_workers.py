"""Jobs that lose a worker, and what those that are left say, and when."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.cluster_runner import Process, start
from tfdist.cluster.ports import HeldPorts

START_SECONDS = 120.0


@dataclass(frozen=True)
class Survivor:
    """A worker that was left.

    Args:
        worker: its index.
        seconds: from the fault to its end.
        code: its exit code.
        said: all that it printed.
    """

    worker: int
    seconds: float
    code: int
    said: str


def lose(
    folder: Path,
    fault: str,
    victim: int,
    *,
    workers: int = 3,
    deadline_seconds: float = 60.0,
    options: Mapping[str, Any] | None = None,
    prefix: Callable[[int], list[str]] = lambda worker: [],
    addresses: list[str] | None = None,
    do: Callable[[], None] = lambda: None,
    is_victim_alive: bool = False,
) -> list[Survivor]:
    """Run a job of `programs/lost_workers` and return those that are left.

    Args:
        folder: for its files.
        fault: a method of its `Fault`.
        victim: who does it.
        workers: how many there are.
        deadline_seconds: how long survivors may take after the fault; then they are killed, and the test fails.
        options: of the strategy.
        prefix: what a worker's command begins with, to run it elsewhere.
        addresses: of the workers; free ports of this machine by default.
        do: called when the victim has reached the fault, for one that comes from outside.
        is_victim_alive: whether the victim is left as well.
    """
    with HeldPorts(workers) as held:
        addresses = addresses or [f"127.0.0.1:{port}" for port in held.ports]
        held.release_for_servers()
        arguments = ["-m", "tests.strategies.programs.lost_workers", str(folder), fault, str(victim)]
        processes: list[Process] = []
        try:
            for worker in range(workers):
                task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}}
                command = [*arguments, json.dumps(dict(options or {}))]
                log = folder / f"{worker}.log"
                processes.append(start(command, json.dumps(task), log, worker, prefix=prefix(worker)))
            at = _fault_of(folder, processes)
            do()
            left = [worker for worker in range(workers) if worker != victim or is_victim_alive]
            ends = _ends_of(processes, left, at, deadline_seconds)
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(30)
    return [
        Survivor(worker, ends[worker] - at, processes[worker].returncode, (folder / f"{worker}.log").read_text())
        for worker in ends
    ]


def _fault_of(folder: Path, processes: list[Process]) -> float:
    """When it happened; every other worker was training by then."""
    fault, deadline = folder / "fault", time.monotonic() + START_SECONDS
    while not fault.exists():
        ended = [index for index, process in enumerate(processes) if process.poll() is not None]
        if ended and not fault.exists():
            raise AssertionError(f"worker {ended[0]} ended early:\n{(folder / f'{ended[0]}.log').read_text()[-5000:]}")
        assert time.monotonic() < deadline, "the job did not come to the fault"
        time.sleep(0.01)
    return json.loads(fault.read_text())["at"]


def _ends_of(processes: list[Process], survivors: list[int], at: float, deadline_seconds: float) -> dict[int, float]:
    ends: dict[int, float] = {}
    while len(ends) < len(survivors):
        for index in survivors:
            if index not in ends and processes[index].poll() is not None:
                ends[index] = time.time()
        left = [index for index in survivors if index not in ends]
        assert time.time() - at < deadline_seconds, (
            f"workers {left} still wait {deadline_seconds:.0f} s after the fault"
        )
        time.sleep(0.01)
    return ends
