"""The most memory that a process of a job has while it trains; each time with processes of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..harness.benchmark import Benchmark
from ..harness.contenders import Case, Job
from ..harness.options import option
from ..harness.pinning import one_core_each
from ..harness.requirements import Pythons
from ..harness.samples import Quantity
from ._training import CONTENDERS, STOCK


@dataclass(frozen=True)
class Options:
    """Of the jobs."""

    workers: tuple[int, ...] = option((1, 2), quick=(2,), help="Of each job.")
    hidden: tuple[int, ...] = option((4096, 4096), quick=(256,), help="Units of the hidden layers.")
    steps: int = option(8, quick=5, help="That the memory is the most of.")


def _cases(options: Options, pythons: Pythons) -> Sequence[Case]:
    model = {"hidden": list(options.hidden)}
    request = {"rows": 128, "steps": options.steps}
    return [
        Case(f"{count} worker{'s' * (count > 1)}", Job(one, one_core_each(count), options=model), request)
        for count in options.workers
        for one in CONTENDERS
    ]


def _read(case: Case, answers: list[dict[str, Any]]) -> Mapping[str, float | None]:
    """Of the process that has most."""
    most = max(answers, key=lambda answer: answer["peak"])
    return {"peak": most["peak"], "added": most["peak"] - most["before"]}


BENCHMARK = Benchmark(
    name="memory",
    measures="MB of a process at most, and what the job added to its imported library; 20 million parameters (80 MB)",
    takes="8 min",
    needs="2 cores; optional: tf_keras, torch, Keras on JAX",
    options=Options,
    cases=_cases,
    quantities=(Quantity("peak", "MB", 1e-6, is_plotted=True), Quantity("added", "MB", 1e-6)),
    baseline=STOCK,
    rounds=3,
    is_fresh=True,
    read=_read,
)
