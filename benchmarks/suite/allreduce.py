"""The sum of a tensor over two processes with a core each: from 4 KB, which is latency, to 400 MB, which is speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..harness.benchmark import Benchmark
from ..harness.contenders import Case, Contender, Job
from ..harness.options import option
from ..harness.pinning import one_core_each
from ..harness.requirements import MPI, TENSORFLOW, TORCH, Pythons, taken_by_strategy
from ..harness.samples import Quantity

STOCK = "stock tf.distribute"
#: A contender is a line.
CONTENDERS = (
    Contender(STOCK, "allreduce_tf", (TENSORFLOW,), options={"strategy": "stock"}),
    Contender("tfdist", "allreduce_tf", (TENSORFLOW,), options={"strategy": "tfdist"}),
    Contender(
        "tfdist over MPI",
        "allreduce_tf",
        (TENSORFLOW, MPI, taken_by_strategy("communication")),
        "mpi",
        {"strategy": "tfdist", "arguments": {"communication": "mpi"}},
        "mpiexec",
    ),
    Contender("torch gloo", "allreduce_torch", (TORCH,), "torch"),
)
#: Bytes that a case sends at most, so that small tensors are summed often and large ones some times.
_BUDGET = 400e6
_LEAST, _MOST = 5, 200


@dataclass(frozen=True)
class Options:
    """Of the tensors."""

    megabytes: tuple[float, ...] = option(
        (0.004, 0.064, 1.0, 10.0, 100.0, 400.0), quick=(0.004, 1.0), help="Of the tensors."
    )
    workers: int = option(2, quick=2, help="Processes.")


def _cases(options: Options, pythons: Pythons) -> Sequence[Case]:
    jobs = [Job(contender, one_core_each(options.workers)) for contender in CONTENDERS]
    found = []
    for size in options.megabytes:
        times = int(max(_LEAST, min(_MOST, _BUDGET / (size * 1e6))))
        request = {"bytes": int(size * 1e6) // 4 * 4, "times": times}
        found += [Case(_setting(size), job, request) for job in jobs]
    return found


def _setting(megabytes: float) -> str:
    return f"{megabytes:g} MB" if megabytes >= 1 else f"{1000 * megabytes:g} KB"


def _read(case: Case, answers: list[dict[str, Any]]) -> Mapping[str, float | None]:
    """Of the slowest process."""
    seconds = max(answer["seconds"] for answer in answers)
    return {"time": seconds, "speed": case.request["bytes"] / seconds}


BENCHMARK = Benchmark(
    name="allreduce",
    measures="GB/s and latency of an all-reduce between two processes with a core each, 4 KB to 400 MB",
    takes="6 min",
    needs="2 cores; optional: torch",
    options=Options,
    cases=_cases,
    quantities=(Quantity("time", "ms", 1e3), Quantity("speed", "GB/s", 1e-9, is_plotted=True, has_ratio=False)),
    baseline=STOCK,
    read=_read,
)
