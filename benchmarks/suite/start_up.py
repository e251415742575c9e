"""How long a job takes from its command to the end of its first step; each time with processes of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    workers: tuple[int, ...] = option((1, 2), quick=(1,), help="Of each job.")


def _cases(options: Options, pythons: Pythons) -> Sequence[Case]:
    request = {"rows": 32, "steps": 1}
    return [
        Case(f"{count} worker{'s' * (count > 1)}", Job(one, one_core_each(count), options={"hidden": [32]}), request)
        for count in options.workers
        for one in CONTENDERS
    ]


BENCHMARK = Benchmark(
    name="start_up",
    measures="seconds from the command to the imported library, to connected workers, to the end of the first step",
    takes="5 min",
    needs="2 cores; optional: tf_keras, torch, Keras on JAX",
    options=Options,
    cases=_cases,
    quantities=(
        Quantity("imported", "s", has_ratio=False),
        Quantity("connected", "s", has_ratio=False),
        Quantity("first_step", "s", is_plotted=True),
    ),
    baseline=STOCK,
    rounds=3,
    is_fresh=True,
)
