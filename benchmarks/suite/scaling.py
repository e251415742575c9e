"""The contest: examples a second of one and of two workers with a core each, a perceptron and SGD with momentum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..harness.benchmark import Benchmark
from ..harness.contenders import Case, Job
from ..harness.options import option
from ..harness.pinning import one_core_each
from ..harness.requirements import Pythons
from ..harness.samples import Quantity, Samples
from ._training import CONTENDERS, STOCK


@dataclass(frozen=True)
class Options:
    """Of the contest."""

    workers: int = option(2, quick=2, help="Of the larger job.")
    rows: int = option(128, quick=128, help="Examples of a worker and step.")
    steps: int = option(150, quick=15, help="Of each case in each round.")
    hidden: tuple[int, ...] = option((1024, 1024), quick=(1024, 1024), help="Units of the hidden layers.")


def _cases(options: Options, pythons: Pythons) -> Sequence[Case]:
    """One worker with the rows of one, one worker with those of all, and all."""
    found = []
    for contender in CONTENDERS:
        model = {"hidden": list(options.hidden)}
        one = Job(contender, one_core_each(1), options=model)
        more = Job(contender, one_core_each(options.workers), options=model)
        whole = options.rows * options.workers
        found += [
            Case(f"1 worker x {options.rows}", one, {"rows": options.rows, "steps": options.steps}),
            Case(f"1 worker x {whole}", one, {"rows": whole, "steps": options.steps}),
            Case(f"{options.workers} workers x {options.rows}", more, {"rows": options.rows, "steps": options.steps}),
        ]
    return found


def _derive(samples: Samples) -> None:
    """Efficiency: weak, of one step with the rows of a worker; strong, of one step with the rows of all."""
    settings = [(setting, *_parts(setting)) for setting in samples.settings()]
    more, workers, rows = next((one for one in settings if one[1] > 1), ("", 0, 0))
    for contender in list(samples.contenders()):
        for setting, count, each in settings:
            for number, seconds in samples.of(contender, setting, "step").items():
                samples.add(contender, setting, number, {"examples": count * each / seconds})
        together = samples.of(contender, more, "step")
        for number, seconds in together.items():
            small = samples.of(contender, f"1 worker x {rows}", "step").get(number)
            large = samples.of(contender, f"1 worker x {rows * workers}", "step").get(number)
            weak = small / seconds if small else None
            strong = large / workers / seconds if large else None
            samples.add(contender, more, number, {"weak": weak, "strong": strong})


def _parts(setting: str) -> tuple[int, int]:
    workers, _, _, rows = setting.split()
    return int(workers), int(rows)


BENCHMARK = Benchmark(
    name="scaling",
    measures="examples/s and efficiency of 1 -> 2 workers with a core each, a perceptron of 1.9 million parameters",
    takes="12 min",
    needs="2 cores; optional: tf_keras, torch, Keras on JAX",
    options=Options,
    cases=_cases,
    quantities=(
        Quantity("step", "ms", 1e3),
        Quantity("examples", "1/s", is_plotted=True),
        Quantity("weak", "%", 100, is_plotted=True, has_ratio=False),
        Quantity("strong", "%", 100, has_ratio=False),
    ),
    baseline=STOCK,
    derive=_derive,
)
