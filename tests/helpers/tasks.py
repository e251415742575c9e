"""The servers of a parameter-server job, as processes that can be killed and started again."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.cluster_runner import Process, start
from tfdist.cluster import Cluster, Task
from tfdist.cluster.ports import HeldPorts

DEADLINE_SECONDS = 60.0


class Tasks:
    """Its worker and ps tasks.

    Args:
        cluster: Of the job.
        folder: Of their logs.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder
        self._processes: dict[Task, Process] = {}

    def start(self, task: Task) -> None:
        config, log = self._cluster.at(task).to_tf_config(), self._folder / f"{task.type}-{task.index}.log"
        self._processes[task] = start(["-m", "tfdist.coordination.server"], config, log, task.index)

    def signal(self, task: Task, number: int) -> None:
        self._processes[task].send_signal(number)
        if number == signal.SIGKILL:
            self._processes[task].wait(DEADLINE_SECONDS)

    def pid(self, task: Task) -> int:
        return self._processes[task].pid

    def end(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(DEADLINE_SECONDS)


@contextlib.contextmanager
def running(folder: Path, *, workers: int, ps: int) -> Iterator[tuple[Cluster, Tasks]]:
    """A job whose chief is this process, and its other tasks, which end with the context; logs go to `folder`."""
    with HeldPorts(1 + workers + ps) as held:
        chief, *rest = [f"127.0.0.1:{port}" for port in held.ports]
        cluster = Cluster({"chief": [chief], "worker": rest[:workers], "ps": rest[workers:]}, Task("chief", 0))
        held.release_for_servers()
        tasks = Tasks(cluster, folder)
        try:
            for task in cluster.peers:
                tasks.start(task)
            yield cluster, tasks
        finally:
            tasks.end()
