"""Seconds to an accuracy on MNIST, two workers with a core each, on links of several speeds.

Each end of the link is a network namespace with one core. Parameter servers' chief, ps and first worker share one end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..harness.benchmark import Benchmark
from ..harness.contenders import Case, Contender, Job, Network, Place
from ..harness.options import option
from ..harness.pinning import cores, one_core_each
from ..harness.requirements import MNIST, ROOT_USER, TENSORFLOW, TORCH, Pythons, Requirement, taken_by_strategy
from ..harness.samples import Quantity, Samples

STOCK = "stock tf.distribute loop"
_NEEDS = (ROOT_USER, MNIST)
_SYNCHRONOUS = {"strategy": "MultiWorkerMirroredStrategy", "rows": 256, "rate": 0.3}


def _tfdist(name: str, *needs: Requirement, **options: Any) -> Contender:
    return Contender(name, "mnist_tf", (TENSORFLOW, *_NEEDS, *needs), options={**_SYNCHRONOUS, **options})


def _compressed(name: str, **options: Any) -> dict[str, Any]:
    return {"compression": {"name": name, "options": options}}


_ACCUMULATION, _LOCAL = {"gradient_accumulation_steps": 4}, {"sync_every_steps": 16}
#: A contender is a line. Rates: docs/benchmarks.md says how they were chosen.
CONTENDERS = (
    Contender(STOCK, "mnist_tf", (TENSORFLOW, *_NEEDS), options={**_SYNCHRONOUS, "strategy": "stock"}),
    Contender("torch DDP", "mnist_torch", (TORCH, *_NEEDS), "torch", options=_SYNCHRONOUS),
    _tfdist("synchronous"),
    _tfdist("accumulation of 4", rate=0.5, arguments=_ACCUMULATION),
    _tfdist("local SGD every 16", strategy="LocalSGDStrategy", arguments=_LOCAL),
    _tfdist("async", strategy="ParameterServerStrategy", rows=128, rate=0.3, momentum=0.5, steps_per_execution=4),
    _tfdist("bfloat16", taken_by_strategy("compression"), arguments=_compressed("Cast", dtype="bfloat16")),
    _tfdist("PowerSGD of rank 4", taken_by_strategy("compression"), arguments=_compressed("PowerSGD", rank=4)),
)


@dataclass(frozen=True)
class Options:
    """Of the race."""

    megabits: tuple[int, ...] = option((1000, 100), quick=(1000,), help="A second, of the links.")
    target: float = option(0.98, quick=0.9, help="Accuracy on the test images.")
    hidden: tuple[int, ...] = option((512,), quick=(64,), help="Units of the hidden layers.")
    most_passes: int = option(12, quick=1, help="Over the images, after which it's given up.")


def _cases(options: Options, pythons: Pythons) -> Sequence[Case]:
    request = {"target": options.target, "parts_a_pass": 4, "most_passes": options.most_passes}
    return [
        Case(f"{speed} Mbit/s", Job(one, _places(one), Network(speed), {"hidden": list(options.hidden)}), request)
        for speed in options.megabits
        for one in CONTENDERS
    ]


def _places(contender: Contender) -> tuple[Place, ...]:
    first, second = one_core_each(2, ends=2)
    if contender.options["strategy"] != "ParameterServerStrategy":
        return first, second
    chief = Place((cores()[0],), "chief")
    server = Place((cores()[0],), "ps", answers=False)
    workers = (Place(one.cores, end=one.end, answers=False) for one in (first, second))
    return (chief, server, *workers)


def _remarks(samples: Samples) -> list[str]:
    """Who didn't get there."""
    found = []
    for (contender, setting, quantity), values in samples.values.items():
        missed = len(values) - len(samples.of(contender, setting, "seconds"))
        if quantity == "accuracy" and missed:
            found.append(f"{contender}, {setting}: {missed} of {len(values)} rounds did not reach the accuracy")
    return found


BENCHMARK = Benchmark(
    name="slow_links",
    measures="seconds to 98% on MNIST over 1 Gbit/s and 100 Mbit/s: synchronous, accumulation, local SGD, async",
    takes="60 min",
    needs="root, iproute2, mnist.npz in TFDIST_DATA_DIR, 2 cores; optional: torch",
    options=Options,
    cases=_cases,
    quantities=(
        Quantity("seconds", "s", is_plotted=True),
        Quantity("part", "s a quarter of a pass"),
        Quantity("parts", "quarters", has_ratio=False),
        Quantity("accuracy", "%", 100, has_ratio=False),
    ),
    baseline=STOCK,
    rounds=3,
    is_fresh=True,
    timeout_seconds=1200,
    remarks=_remarks,
)
