"""TensorFlow's own fault-tolerance tests of its coordinator, from the installed package, with tfdist's strategy.

python -m tests.strategies.programs.tensorflow_fault_tolerance [--stock] [NAME…]

Upstream they run in Bazel, with clusters that fork the test's process. Here tasks are processes of their own, killed
with SIGKILL. Each test runs in a process of its own, twice: with 2 workers and 1 ps, and with 1 worker and 2 ps.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.coordinator import fault_tolerance_test_base as upstream
from tensorflow.python.training import coordinator as thread_coordinator

import tfdist
from tests.helpers.tasks import Tasks
from tfdist.cluster import Address, Cluster, Task
from tfdist.cluster.ports import HeldPorts
from tfdist.strategies.multi_worker_mirrored import as_resolver

CLUSTERS = ((2, 1), (1, 2))
LIMIT_SECONDS = 240.0


class Killable:
    """The cluster as upstream's tests use it."""

    def __init__(self, cluster: Cluster, tasks: Tasks) -> None:
        self._cluster, self._tasks = cluster, tasks

    def kill_task(self, task_type: str, index: int) -> None:
        self._tasks.signal(Task(task_type, index), signal.SIGKILL)

    def start_task(self, task_type: str, index: int) -> None:
        """Returns when it serves, as upstream's does."""
        self._tasks.start(Task(task_type, index))
        address = Address.parse(self._cluster.addresses(task_type)[index])
        deadline = time.monotonic() + LIMIT_SECONDS
        while not address.listens():
            assert time.monotonic() < deadline, f"{task_type} {index} does not start"
            time.sleep(0.05)

    def stop(self) -> None:
        self._tasks.end()


def test_case(workers: int, ps: int, make: Callable[[Cluster], Any]) -> type:
    """Upstream's tests on such a cluster."""

    class FaultToleranceTest(upstream.BaseFaultToleranceTest, tf.test.TestCase):
        # Upstream's test of a ps that fails calls it, and doesn't have it.
        sleep = staticmethod(time.sleep)

        def setUp(self) -> None:
            tf.test.TestCase.setUp(self)
            folder = Path(tempfile.mkdtemp())
            with HeldPorts(1 + workers + ps) as held:
                chief, *rest = [f"127.0.0.1:{port}" for port in held.ports]
                jobs = {"chief": [chief], "worker": rest[:workers], "ps": rest[workers:]}
                held.release_for_servers()
                cluster = Cluster(jobs, Task("chief", 0))
                tasks = Tasks(cluster, folder)
                self._cluster = Killable(cluster, tasks)
                for task in cluster.peers:
                    tasks.start(task)
                self.strategy = make(cluster)
            self.cluster_coord = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
            self.thread_coord = thread_coordinator.Coordinator(clean_stop_exception_types=[])
            self.num_workers, self.num_ps = workers, ps

    return FaultToleranceTest


def make_stock(cluster: Cluster) -> Any:
    return tf.distribute.ParameterServerStrategy(as_resolver(cluster))


def run_one(name: str, workers: int, ps: int, make: Callable[[Cluster], Any]) -> int:
    result = unittest.TextTestRunner(verbosity=2).run(test_case(workers, ps, make)(name))
    return 77 if result.skipped else 0 if result.wasSuccessful() else 1


def run_all(names: list[str], stock: bool) -> int:
    counts = {"passed": 0, "skipped": 0, "failed": 0}
    for workers, ps in CLUSTERS:
        for name in names:
            command = [sys.executable, "-m", "tests.strategies.programs.tensorflow_fault_tolerance", name]
            command += [f"--cluster={workers},{ps}", *(["--stock"] if stock else [])]
            begun = time.monotonic()
            with tempfile.TemporaryFile() as log:
                try:
                    code: int | None = subprocess.run(
                        command, stdout=log, stderr=log, timeout=LIMIT_SECONDS, check=False
                    ).returncode
                except subprocess.TimeoutExpired:
                    code = None
                log.seek(0)
                text = log.read().decode(errors="replace")
            outcome = {0: "passed", 77: "skipped"}.get(code, "failed")
            counts[outcome] += 1
            print(f"{outcome:8} {workers} workers, {ps} ps  {name}  {time.monotonic() - begun:.0f} s", flush=True)
            if outcome == "failed":
                print(text[-3000:], flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return int(counts["failed"] > 0)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--cluster")
    options = parser.parse_args()
    names = options.names or [name for name in vars(upstream.BaseFaultToleranceTest) if name.startswith("test")]
    if options.cluster is None:
        return run_all(names, options.stock)
    workers, ps = map(int, options.cluster.split(","))
    return run_one(names[0], workers, ps, make_stock if options.stock else tfdist.ParameterServerStrategy)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
