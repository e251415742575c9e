"""Steps as `tfdist.planning` predicts them, from computing alone and a link's latency and speed, and as they are.

Workers have a core each, or share cores; computing alone and the link are measured by as many processes on the same
cores, so that what they take from each other is in both.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfdist.planning import CostModel, Link, Machines, Workload
from tfdist.planning.collectives import all_reduce_seconds

from ..harness.benchmark import Benchmark
from ..harness.contenders import Case, Contender, Job, Network
from ..harness.options import option
from ..harness.pinning import one_core_each
from ..harness.requirements import ROOT_USER, TENSORFLOW, Pythons
from ..harness.samples import Quantity, Samples
from ..tasks.contest import CLASSES, FEATURES

FIT = {"strategy": "tfdist", "engine": "fit", "hidden": []}
TOGETHER = Contender("tfdist fit", "training_tf", (TENSORFLOW, ROOT_USER), options=FIT)
ALONE = Contender("computing alone", "training_tf", (TENSORFLOW,), options={**FIT, "alone": True})
LINK = "the link"
#: Latency is that of the smallest tensor, speed that of the gradients' size.
SMALL_BYTES, LARGE_BYTES = 4, 16_000_000
#: In each step of `fit`: the divisor of the loss, and what the logs have.
SMALL_EXCHANGES = 2


@dataclass(frozen=True)
class Options:
    """Of the steps."""

    workers: tuple[int, ...] = option((2, 4), quick=(2,), help="Of the jobs.")
    megabits: tuple[int, ...] = option((1000, 200), quick=(1000,), help="A second, of the links.")
    units: tuple[int, ...] = option((1024, 2048), quick=(1024,), help="Of the two hidden layers; a model for each.")
    rows: int = option(128, quick=128, help="Examples of a worker and step.")
    steps: int = option(20, quick=8, help="Of each case in each round.")


def _cases(options: Options, pythons: Pythons) -> Sequence[Case]:
    found = []
    for count in options.workers:
        alone = Job(ALONE, one_core_each(count))
        for units in options.units:
            request = {"rows": options.rows, "steps": options.steps, "hidden": [units] * 2}
            found.append(Case(f"{count} workers, {units} units", alone, request))
        for speed in options.megabits:
            together = Job(TOGETHER, one_core_each(count, ends=count), Network(speed, count))
            at = f"{count} workers, {speed} Mbit/s"
            found.append(Case(f"{at}, smallest", together, {"bytes": SMALL_BYTES, "times": 50}))
            found.append(Case(f"{at}, largest", together, {"bytes": LARGE_BYTES, "times": 5}))
            for units in options.units:
                request = {"rows": options.rows, "steps": options.steps, "hidden": [units] * 2}
                found.append(Case(f"{at}, {units} units", together, request))
    return found


def _read(case: Case, answers: list[dict[str, Any]]) -> Mapping[str, float | None]:
    """Of the slowest process."""
    key = "seconds" if "bytes" in case.request else "step"
    return {key: max(answer[key] for answer in answers)}


def link_of(small_seconds: float, large_seconds: float, ends: int) -> Link:
    """The link with which the model's all-reduces of the two sizes take so long, the large one in a ring."""
    latency = small_seconds / all_reduce_seconds(0.0, Machines(ends, 1, Link(1.0, 1.0), Link(1.0, 1.0)))
    hops = 2 * (ends - 1)
    return Link(LARGE_BYTES / ends / (large_seconds / hops - latency), latency)


def predicted_seconds(compute_seconds: float, units: int, workers: int, link: Link) -> float:
    """Of a step of the perceptron with two hidden layers of so many units.

    All gradients are exchanged together behind the backward pass.
    """
    widths = [FEATURES, units, units, CLASSES]
    sizes = [size for before, after in itertools.pairwise(widths) for size in (before * after, after)]
    variables = tuple(4.0 * size for size in sizes)
    work = Workload(compute_seconds, variables, bucket_bytes=sum(variables), small_exchanges=SMALL_EXCHANGES)
    machines = Machines(workers, 1, link, link)
    return CostModel(work, machines).synchronous(overlap=False).step_seconds


def _derive(samples: Samples) -> None:
    """Adds the prediction to each measured step, and the link to each of its speeds."""
    measured = [key for key in samples.values if key.contender == TOGETHER.name and key.quantity == "step"]
    for key in measured:
        workers, speed, units = key.setting.split(", ")
        count, at = int(workers.split()[0]), f"{workers}, {speed}"
        for number, seconds in dict(samples.values[key]).items():
            small = samples.of(TOGETHER.name, f"{at}, smallest", "seconds").get(number)
            large = samples.of(TOGETHER.name, f"{at}, largest", "seconds").get(number)
            alone = samples.of(ALONE.name, f"{workers}, {units}", "step").get(number)
            if small and large and alone and large > 2 * small:
                link = link_of(small, large, count)
                predicted = predicted_seconds(alone, int(units.split()[0]), count, link)
                found = {"predicted": predicted, "share": predicted / seconds}
                samples.add(TOGETHER.name, key.setting, number, found)
                samples.add(LINK, at, number, {"latency": link.latency_seconds, "speed": link.bytes_per_second})


BENCHMARK = Benchmark(
    name="planning",
    measures="steps that tfdist.planning predicts over steps as they are: two models, 2 and 4 workers, two link speeds",
    takes="15 min",
    needs="root, iproute2, 2 cores",
    options=Options,
    cases=_cases,
    quantities=(
        Quantity("step", "ms", 1e3, is_plotted=True, has_ratio=False),
        Quantity("predicted", "ms", 1e3, is_plotted=True, has_ratio=False),
        Quantity("share", "predicted / measured", is_plotted=True, has_ratio=False),
        Quantity("seconds", "ms an all-reduce", 1e3, has_ratio=False),
        Quantity("latency", "ms", 1e3, has_ratio=False),
        Quantity("speed", "MB/s", 1e-6, has_ratio=False),
    ),
    baseline=TOGETHER.name,
    rounds=5,
    timeout_seconds=600,
    read=_read,
    derive=_derive,
)
