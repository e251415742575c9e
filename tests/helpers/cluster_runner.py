"""Runs one Python command on N real processes, each with its TF_CONFIG, and shows the first failure's traceback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.helpers.warm_processes import QUIET, WarmProcess, start_warm
from tfdist.cluster.ports import HeldPorts

Process = subprocess.Popen[bytes] | WarmProcess


class ClusterFailed(AssertionError):
    """A task failed or the cluster ran out of time; the message holds the first failure's output."""


def run_python(args: Sequence[str], *, workers: int, logs: Path, timeout_seconds: float = 240) -> None:
    """Run `python *args` on each of `workers` tasks (one process without TF_CONFIG for 0) and wait for all.

    Raises:
        ClusterFailed: the first task to fail, with the tail of its output.
    """
    with started(args, workers=workers, logs=logs) as tasks:
        _wait(tasks, logs, time.monotonic() + timeout_seconds)


def exit_codes(args: Sequence[str], *, workers: int, logs: Path, timeout_seconds: float = 120) -> list[int]:
    """Run as `run_python` does, and let every task end as it wants to.

    Raises:
        ClusterFailed: tasks didn't end in time, with the tails of their outputs.
    """
    with started(args, workers=workers, logs=logs) as tasks:
        return ends_of(tasks, logs, timeout_seconds)


def ends_of(tasks: Sequence[Process], logs: Path, timeout_seconds: float = 120) -> list[int]:
    """Wait for tasks of `started`; their exit codes.

    Raises:
        ClusterFailed: they didn't end in time, with the tails of their outputs.
    """
    deadline = time.monotonic() + timeout_seconds
    try:
        return [task.wait(max(0.01, deadline - time.monotonic())) for task in tasks]
    except subprocess.TimeoutExpired:
        raise ClusterFailed(_still_running(tasks, logs)) from None


@contextlib.contextmanager
def started(args: Sequence[str], *, workers: int, logs: Path) -> Iterator[list[Process]]:
    """The tasks of `run_python` while they run; those that are left are killed."""
    logs.mkdir(parents=True, exist_ok=True)
    with HeldPorts(max(workers, 1)) as held:
        configs = _configs(held.ports, workers)
        held.release_for_servers()
        tasks = [start(args, config, logs / f"{index}.log", index) for index, config in enumerate(configs)]
        try:
            yield tasks
        finally:
            for task in tasks:
                _kill(task)


def _configs(ports: Sequence[int], workers: int) -> list[str | None]:
    if workers == 0:
        return [None]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    return [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}) for i in range(workers)]


def start(args: Sequence[str], config: str | None, log: Path, index: int = 0, *, prefix: Sequence[str] = ()) -> Process:
    """Start `python *args` in a session of its own.

    Args:
        args: of Python.
        config: TF_CONFIG, None for none.
        log: what it prints is added to this file.
        index: of the task; the next one's hash values differ, say, as those of real processes do.
        prefix: what the command begins with, such as what runs it in another network.
    """
    env = {**os.environ, **QUIET}
    env.pop("TF_CONFIG", None)
    if config is not None:
        env["TF_CONFIG"] = config
    with log.open("ab") as output:
        warm = None if prefix else start_warm(args, env, output, index)
        return warm or subprocess.Popen(
            [*prefix, sys.executable, *args], env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def _wait(tasks: Sequence[Process], logs: Path, deadline: float) -> None:
    """Poll until all are done; the first to fail is reported, not those it takes along."""
    running = dict(enumerate(tasks))
    while running:
        for index, task in list(running.items()):
            if task.poll() is None:
                continue
            del running[index]
            if task.returncode:
                raise ClusterFailed(f"task {index} exited with {task.returncode}:\n{_tail(logs / f'{index}.log')}")
        if time.monotonic() > deadline:
            raise ClusterFailed(_still_running(tasks, logs))
        time.sleep(0.05)


def _still_running(tasks: Sequence[Process], logs: Path) -> str:
    running = [index for index, task in enumerate(tasks) if task.poll() is None]
    texts = "\n".join(f"task {index}:\n{_tail(logs / f'{index}.log')}" for index in running)
    return f"out of time; still running:\n{texts}"


def _tail(log: Path, characters: int = 6000) -> str:
    return log.read_text(errors="replace")[-characters:]


def _kill(task: Process) -> None:
    if task.poll() is None:
        os.killpg(task.pid, signal.SIGKILL)
    task.wait(timeout=30)
