"""Seconds and bytes of optimizer steps, and what the tasks of benchmarks/accumulation.py are told."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

#: Rows and classes of MNIST, and a multilayer perceptron of 2.8 million parameters (11 MB) to send.
FEATURES, HIDDEN, CLASSES = 784, (1536, 1024), 10


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to train.

    Args:
        engine: "fit", "fit in executions" of K micro-batches, "loop", "stock" or "torch".
        rows: of a micro-batch, of both workers together.
        steps: K, micro-batches to an optimizer step.
    """

    engine: str
    rows: int
    steps: int

    @property
    def name(self) -> str:
        return f"{self.engine} {self.steps} x {self.rows}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one task measures.

    Args:
        cases: in this order, again in every round.
        optimizer_steps: of each case in each round.
        rounds: how often.
        interface: whose bytes are counted.
        output: where the results are written.
    """

    cases: list[Case]
    optimizer_steps: int
    rounds: int
    interface: str
    output: str

    @classmethod
    def read(cls, path: str) -> Plan:
        values = json.loads(Path(path).read_text())
        return cls(**{**values, "cases": [Case(**case) for case in values["cases"]]})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self)))


class Meter:
    """Notes the time and the link's counters at the end of each micro-batch.

    Args:
        interface: of the link; "" for none.
        every: micro-batches to an optimizer step.
        clock: gives seconds.
    """

    def __init__(self, interface: str, every: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._interface, self._every, self._clock, self._batches = interface, every, clock, 0
        self._seconds: list[float] = []
        self._bytes: list[int] = []

    def tick(self, batches: int = 1) -> None:
        """Micro-batches are over."""
        self._batches += batches
        if self._batches % self._every == 0:
            self._seconds.append(self._clock())
            self._bytes.append(bytes_of(self._interface))

    def seconds(self) -> list[float]:
        """Of each optimizer step but the first."""
        return [after - before for before, after in itertools.pairwise(self._seconds)]

    def mean_bytes(self) -> float:
        """Sent and received in an optimizer step; acknowledgements come late, so only their mean is of use."""
        return (self._bytes[-1] - self._bytes[0]) / (len(self._bytes) - 1)


def bytes_of(interface: str) -> int:
    """Bytes that an interface of this process' network namespace has received and sent."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, counters = line.strip().partition(":")
        if name == interface:
            values = counters.split()
            return int(values[0]) + int(values[8])
    return 0


class Results:
    """What a task found, by the name of the case."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[float]]] = {}

    def add(self, case: Case, together: Meter, alone: Meter) -> None:
        """One round.

        Args:
            case: what was measured.
            together: on both workers.
            alone: the same rows of this worker without any communication.
        """
        values = self._values.setdefault(case.name, {"seconds": [], "alone_seconds": [], "bytes": []})
        values["seconds"] += together.seconds()
        values["alone_seconds"] += alone.seconds()
        values["bytes"].append(together.mean_bytes())

    def write(self, path: str) -> None:
        Path(path).write_text(json.dumps(self._values))
