"""One process of a job: its type and its index."""

from __future__ import annotations

from dataclasses import dataclass

from tfdist.cluster.suggest import nearest_of
from tfdist.errors import ClusterError

TASK_TYPES = ("chief", "worker", "ps", "evaluator")


@dataclass(frozen=True, order=True)
class Task:
    """Names one task of a cluster.

    Args:
        type: "chief", "worker", "ps" or "evaluator".
        index: Position in the list of that job's addresses, from 0.

    Raises:
        ClusterError: If the type is unknown or the index is no natural number.

    Example:
        >>> str(Task("worker", 1))
        'worker/1'
    """

    type: str
    index: int = 0

    def __post_init__(self) -> None:
        check_job_name(self.type, "task.type")
        if isinstance(self.index, bool) or not isinstance(self.index, int) or self.index < 0:
            raise ClusterError(
                f"A task's index must be an integer from 0. Received: task.index={self.index!r}. "
                f"Give this task's position in the list cluster[{self.type!r}]."
            )

    def __str__(self) -> str:
        return f"{self.type}/{self.index}"


def check_job_name(name: object, field: str) -> None:
    """Raises ClusterError unless `name` is one of TASK_TYPES; `field` says where it was given."""
    if name in TASK_TYPES:
        return
    raise ClusterError(f"A job must be one of {', '.join(TASK_TYPES)}. Received: {field}={name!r}.{_hint(name)}")


def _hint(name: object) -> str:
    if name == "master":  # TF 1's word for it
        return " Did you mean 'chief'?"
    near = nearest_of(str(name), TASK_TYPES)
    return f" Did you mean {near!r}?" if near else " Rename it to one of these."
