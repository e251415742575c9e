"""What runs against what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .requirements import Requirement


@dataclass(frozen=True)
class Contender:
    """One way to do what a benchmark measures.

    Args:
        name: as it's printed.
        task: module whose processes do it; without dots, one of benchmarks/tasks.
        needs: what must be there.
        python: whose interpreter: "here", "torch", "jax" or "mpi".
        options: for the task.
        launcher: "mpiexec" for processes that are its ranks; "" for processes of their own.
    """

    name: str
    task: str
    needs: tuple[Requirement, ...]
    python: str = "here"
    options: Mapping[str, Any] = field(default_factory=dict)
    launcher: str = ""

    @property
    def module(self) -> str:
        """For `python -m`."""
        return self.task if "." in self.task else f"benchmarks.tasks.{self.task}"


@dataclass(frozen=True)
class Network:
    """A link between the processes of a job, other than loopback.

    Args:
        megabits_per_second: of each end, in each direction.
        ends: machines that it stands for.
    """

    megabits_per_second: int
    ends: int = 2


@dataclass(frozen=True)
class Place:
    """Where one process of a job runs.

    Args:
        cores: on which.
        kind: "worker", "chief" or "ps".
        end: of the network.
        answers: whether it answers requests; servers don't.
    """

    cores: tuple[int, ...]
    kind: str = "worker"
    end: int = 0
    answers: bool = True


@dataclass(frozen=True)
class Job:
    """The processes of a contender in a setting.

    Args:
        contender: what they do.
        places: one for each process.
        network: between them; None for loopback.
        options: for the task, beside the contender's.
    """

    contender: Contender
    places: tuple[Place, ...]
    network: Network | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What is measured once in a round.

    Args:
        setting: as it's printed: "2 workers".
        job: whose processes are asked.
        request: what they are asked for.
    """

    setting: str
    job: Job
    request: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As it's printed."""
        return f"{self.job.contender.name}, {self.setting}"
