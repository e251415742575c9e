"""The servers of a parameter-server job, as processes that can be killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.helpers.cluster_runner import QUIET
from tfdist.cluster import Cluster, Task

DEADLINE_SECONDS = 60.0


class Tasks:
    """Its worker and ps tasks.

    Args:
        cluster: Of the job.
        folder: Of their logs.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder
        self._processes: dict[Task, subprocess.Popen[bytes]] = {}

    def start(self, task: Task) -> None:
        env = {**os.environ, **QUIET, "TF_CONFIG": self._cluster.at(task).to_tf_config()}
        with (self._folder / f"{task.type}-{task.index}.log").open("ab") as log:
            command = [sys.executable, "-m", "tfdist.coordination.server"]
            self._processes[task] = subprocess.Popen(command, env=env, stdout=log, stderr=log)

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
