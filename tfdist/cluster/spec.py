"""A job's tasks and their addresses, and which of them this process is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdist.cluster import tf_config
from tfdist.cluster.task import TASK_TYPES, Task
from tfdist.cluster.validation import check_cluster, normalise_jobs


@dataclass(frozen=True)
class Cluster:
    """What TF_CONFIG says: who takes part, where each listens, and which one this process is.

    Without any job it's one local task, which needs no network.

    Args:
        jobs: Addresses ("host:port") by job: "chief", "worker", "ps". "evaluator" only when the
            task itself is the evaluator.
        task: This process.
        rpc_layer: The protocol between tasks.

    Raises:
        ClusterError: If the description is wrong; the message names the field and the fix.

    Example:
        >>> two = Cluster({"worker": ["a:2222", "b:2222"]}, Task("worker", 1))
        >>> two.num_workers, two.is_chief, two.address
        (2, False, 'b:2222')
    """

    jobs: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    task: Task = field(default_factory=lambda: Task("worker", 0))
    rpc_layer: str = "grpc"

    def __post_init__(self) -> None:
        object.__setattr__(self, "jobs", normalise_jobs(self.jobs))
        check_cluster(self.jobs, self.task, self.rpc_layer)

    @classmethod
    def from_tf_config(cls, value: str | bytes | Mapping[str, Any]) -> Cluster:
        """Reads TF_CONFIG, as text or as the parsed dictionary.

        Raises:
            ClusterError: If it's no JSON or describes no valid cluster.

        Example:
            >>> Cluster.from_tf_config("{}").is_local
            True
        """
        return cls(*tf_config.parse(value))

    def to_tf_config(self) -> str:
        """Returns the text for TF_CONFIG; `Cluster.from_tf_config` reads it back."""
        return tf_config.format(self.jobs, self.task, self.rpc_layer)

    def at(self, task: Task) -> Cluster:
        """Returns the same cluster as `task` sees it."""
        return dataclasses.replace(self, task=task)

    def addresses(self, job: str) -> tuple[str, ...]:
        """Returns the addresses of one job, in order of index; empty when there's no such job."""
        return tuple(self.jobs.get(job, ()))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks: chief, workers, ps, evaluator; a local task alone is not listed."""
        return tuple(self._walk())

    def _walk(self) -> Iterator[Task]:
        for job in TASK_TYPES:
            for index in range(len(self.addresses(job))):
                yield Task(job, index)

    @property
    def address(self) -> str | None:
        """This task's own address; None for a local task or an evaluator outside the cluster."""
        own = self.addresses(self.task.type)
        return own[self.task.index] if self.task.index < len(own) else None

    @property
    def peers(self) -> dict[Task, str]:
        """The addresses of the other tasks."""
        return {t: self.jobs[t.type][t.index] for t in self.tasks if t != self.task}

    @property
    def is_local(self) -> bool:
        """Whether this is a single local task without a network address."""
        return not self.jobs

    @property
    def num_ps(self) -> int:
        """How many parameter servers there are."""
        return len(self.addresses("ps"))

    @property
    def num_workers(self) -> int:
        """How many tasks compute gradients: workers, plus the chief unless it coordinates ps tasks.

        1 for a local task.
        """
        if self.is_local:
            return 1
        chiefs = 0 if self.num_ps else len(self.addresses("chief"))
        return chiefs + len(self.addresses("worker"))

    @property
    def worker_index(self) -> int | None:
        """This task's position among the `num_workers`, chief first; None if it isn't one."""
        has_training_chief = bool(self.addresses("chief")) and not self.num_ps
        if self.task.type == "worker":
            return self.task.index + int(has_training_chief)
        return 0 if self.task.type == "chief" and not self.num_ps else None

    @property
    def worker_tasks(self) -> list[Task]:
        """The `num_workers` that compute gradients, in the order of their `worker_index`."""
        places = {task: self.at(task).worker_index for task in self.tasks}
        return sorted((task for task, index in places.items() if index is not None), key=lambda task: places[task] or 0)

    @property
    def is_chief(self) -> bool:
        """Whether this task saves and logs for all: the chief, or worker 0 when no job is chief."""
        chief = Task("chief" if self.addresses("chief") else "worker", 0)
        if self.is_local:
            return self.task.type in ("chief", "worker")
        return self.task == chief

    def __str__(self) -> str:
        if self.is_local:
            return f"one local task, {self.task}"
        counts = ", ".join(f"{len(self.jobs[j])} {j}" for j in TASK_TYPES if j in self.jobs)
        return f"{counts}; this is {self.task} at {self.address or 'no address'}"
