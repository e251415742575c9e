"""What a step costs beside computing: a model so small that all of a step is overhead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..harness.benchmark import Benchmark
from ..harness.contenders import Case, Contender, Job
from ..harness.options import option
from ..harness.pinning import all_cores, one_core_each
from ..harness.requirements import LEGACY_KERAS, TENSORFLOW, Pythons
from ..harness.samples import Quantity

_STOCK = {"strategy": "stock"}
_TFDIST = {"strategy": "tfdist"}
STOCK_FIT = Contender("stock tf.distribute fit", "training_tf", (TENSORFLOW,), options={**_STOCK, "engine": "fit"})
STOCK_LOOP = Contender("stock tf.distribute loop", "training_tf", (TENSORFLOW,), options={**_STOCK, "engine": "loop"})
LEGACY = Contender("legacy Keras fit", "training_tf", (LEGACY_KERAS,), options={**_STOCK, "engine": "legacy fit"})
FIT = Contender("tfdist fit", "training_tf", (TENSORFLOW,), options={**_TFDIST, "engine": "fit"})
LOOP = Contender("tfdist loop", "training_tf", (TENSORFLOW,), options={**_TFDIST, "engine": "loop"})
#: Keras 3's `fit` under stock MultiWorkerMirroredStrategy raises.
ON_TWO_WORKERS = (LEGACY, STOCK_LOOP, FIT, LOOP)
ON_TWO_DEVICES = (LEGACY, STOCK_FIT, STOCK_LOOP, FIT, LOOP)


@dataclass(frozen=True)
class Options:
    """Of the steps."""

    steps: int = option(300, quick=20, help="Of each case in each round.")
    rows: int = option(64, quick=64, help="Examples of a global batch.")


def _cases(options: Options, pythons: Pythons) -> Sequence[Case]:
    model = {"features": 32, "hidden": [64]}
    whole = {"rows": options.rows, "steps": options.steps}
    half = {"rows": options.rows // 2, "steps": options.steps}
    devices = [Job(one, all_cores(), options={**model, "devices": 2}) for one in ON_TWO_DEVICES]
    workers = [Job(one, one_core_each(2), options=model) for one in ON_TWO_WORKERS]
    return [
        *(Case("2 devices, 1 process", job, whole) for job in devices),
        *(Case("2 workers", job, half) for job in workers),
    ]


BENCHMARK = Benchmark(
    name="fit_step",
    measures="ms a step of a model so small that a step is overhead, MirroredStrategy and MultiWorkerMirroredStrategy",
    takes="3 min",
    needs="2 cores; optional: tf_keras",
    options=Options,
    cases=_cases,
    quantities=(Quantity("step", "ms", 1e3, is_plotted=True),),
    baseline=LEGACY.name,
    rounds=7,
)
