"""Cases, and a benchmark, whose processes are programs/counting.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.contenders import Case, Contender, Job, Place
from benchmarks.harness.samples import Quantity

TASK = "tests.benchmarks.programs.counting"


@dataclass(frozen=True)
class Options:
    """None."""


def contender(name: str, **options: Any) -> Contender:
    return Contender(name, TASK, (), options={"name": name, **options})


def case(who: Contender, setting: str = "1", size: float = 1, places: Sequence[Place] = (Place((0,)),)) -> Case:
    return Case(setting, Job(who, tuple(places)), {"size": size})


def benchmark(cases: Sequence[Case], **settings: Any) -> Benchmark:
    values = {
        "name": "counting",
        "measures": "nothing",
        "takes": "no time",
        "needs": "nothing",
        "options": Options,
        "cases": lambda options, pythons: cases,
        "quantities": (Quantity("seconds", "ms", 1e3), Quantity("pid", "", has_ratio=False)),
        "baseline": "a",
        "read": lambda case, answers: {"seconds": answers[0]["seconds"], "pid": answers[0]["pid"]},
        **settings,
    }
    return Benchmark(**values)
