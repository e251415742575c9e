"""Asks all cases in turns, round after round."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from .benchmark import Benchmark
from .contenders import Case, Job, Network
from .jobs import JobFailed, RunningJob
from .links import Link, LinkFailed, limited_link
from .requirements import Pythons
from .samples import Samples


class Jobs(Protocol):
    """Where rounds get running jobs from."""

    def of(self, job: Job) -> RunningJob:
        """The processes of a job, started if they aren't."""

    def drop(self, job: Job) -> None:
        """End them if they are there."""


class JobPool:
    """Jobs that have been started, and the links between their processes.

    Args:
        pythons: the interpreters.
    """

    def __init__(self, pythons: Pythons) -> None:
        self._pythons = pythons
        self._running: list[tuple[Job, RunningJob]] = []
        self._links: dict[Network, Link] = {}
        self._stack = contextlib.ExitStack()

    def of(self, job: Job) -> RunningJob:
        """The processes of a job, started if they aren't.

        Raises:
            JobFailed: they can't be.
        """
        for known, running in self._running:
            if known == job:
                return running
        try:
            link = self._link(job.network) if job.network else None
        except LinkFailed as error:
            raise JobFailed(str(error)) from error
        running = RunningJob(job, self._pythons, link)
        self._running.append((job, running))
        return running

    def drop(self, job: Job) -> None:
        """End the processes of a job if they are there."""
        for known, running in [pair for pair in self._running if pair[0] == job]:
            running.stop()
            self._running.remove((known, running))

    def __enter__(self) -> JobPool:
        return self

    def __exit__(self, *error: object) -> None:
        for _, running in self._running:
            running.stop()
        self._stack.close()

    def _link(self, network: Network) -> Link:
        if network not in self._links:
            self._links[network] = self._stack.enter_context(limited_link(network))
        return self._links[network]


def order(count: int, number: int) -> Iterator[int]:
    """In which a round asks so many cases: each begins with another one, so that none is always behind the same."""
    yield from ((number + index) % count for index in range(count))


def measure(
    benchmark: Benchmark, cases: Sequence[Case], rounds: int, jobs: Jobs, progress: Callable[[str], None]
) -> Samples:
    """All cases in all rounds.

    A case that fails is noted and left out from then on; the others go on.
    """
    samples = Samples()
    for number in range(rounds):
        for index in order(len(cases), number):
            case = cases[index]
            contender, at = case.job.contender.name, (case.job.contender.name, case.setting)
            if at in samples.failures:
                continue
            try:
                answers = jobs.of(case.job).ask(case.request, benchmark.timeout_seconds)
                measured = benchmark.read(case, answers)
                samples.add(contender, case.setting, number, measured)
                progress(f"round {number + 1} of {rounds}: {case.name}: {_first(benchmark, measured)}")
            except JobFailed as error:
                samples.failures[at] = str(error)
                progress(f"failed: {case.name}: {str(error).splitlines()[0]}")
                jobs.drop(case.job)
            if benchmark.is_fresh:
                jobs.drop(case.job)
    benchmark.derive(samples)
    return samples


def _first(benchmark: Benchmark, measured: Mapping[str, float | None]) -> str:
    for quantity in benchmark.quantities:
        value = measured.get(quantity.name)
        if value is not None:
            return f"{quantity.name} {value * quantity.scale:.3g} {quantity.unit}"
    return "nothing"
