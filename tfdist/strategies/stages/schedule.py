"""In which order a stage does its units, and how a graph is made to keep to it.

Both orders give the same gradients and take the same time: with S stages and M micro-batches the last stage begins S - 1
units late and the first one ends with the last gradient, so that each stands still for (S - 1) / (M + S - 1) of the
time. They differ in how many micro-batches are in flight: M, or at most S.

References:
    Huang et al. 2019, "GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism", NeurIPS,
    arXiv:1811.06965.
    Narayanan et al. 2019, "PipeDream: Generalized Pipeline Parallelism for DNN Training", SOSP, arXiv:1806.03377, and
    2021, arXiv:2006.09503: 1F1B, here with a flush after each batch, so that no gradient is stale.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from tfdist._compat.tensorflow_control_inputs import let_wait

Kind = Literal["forward", "backward"]


class Unit(NamedTuple):
    """The pass of a stage on one micro-batch, counted from 0."""

    kind: Kind
    micro_batch: int


def gpipe(stage: int, stages: int, micro_batches: int) -> list[Unit]:
    """All forward units, then all backward units, the first micro-batch first."""
    forward = [Unit("forward", index) for index in range(micro_batches)]
    return forward + [Unit("backward", index) for index in range(micro_batches)]


def one_forward_one_backward(stage: int, stages: int, micro_batches: int) -> list[Unit]:
    """As many forward units as stages follow, this one included, then backward and forward in turns."""
    ahead = min(stages - stage, micro_batches)
    units = [Unit("forward", index) for index in range(ahead)]
    for index in range(micro_batches):
        units.append(Unit("backward", index))
        if index + ahead < micro_batches:
            units.append(Unit("forward", index + ahead))
    return units


#: The units of a stage, from its index, the number of stages, and the number of micro-batches.
Order = Callable[[int, int, int], list[Unit]]

#: By the name that a user gives.
SCHEDULES: dict[str, Order] = {"1f1b": one_forward_one_backward, "gpipe": gpipe}


def most_in_flight(units: list[Unit]) -> int:
    """Micro-batches whose activations a stage holds at a time, at most."""
    return max(itertools.accumulate(1 if unit.kind == "forward" else -1 for unit in units))


class Timetable:
    """The units of one batch while its graph is made.

    Each unit begins at one operation and ends at one, so that a schedule is a chain of ends and beginnings. A train
    step that runs the model more than once has several parts of a unit, of which a forward one may need a backward one
    of the same micro-batch; then only what bounds the micro-batches in flight is kept: forward after backward.

    Args:
        order: of a stage's units, from its index, the number of stages, and the number of micro-batches.
        stages: of the model.
        pipelines: that take turns at the micro-batches.
        micro_batches: of the batch.
    """

    def __init__(self, order: Order, stages: int, pipelines: int, micro_batches: int) -> None:
        self._order, self._stages, self._pipelines, self._count = order, stages, pipelines, micro_batches
        self._begun: dict[tuple[int, Unit], list[Any]] = {}
        self._ended: dict[tuple[int, Unit], list[Any]] = {}
        #: Which micro-batch is traced now.
        self.micro_batch = 0

    @property
    def pipeline(self) -> int:
        """Which pipeline takes the micro-batch."""
        return self.micro_batch % self._pipelines

    def begin(self, kind: Kind, stage: int) -> list[Any]:
        """What the first operations of a unit must wait for; in the unit's device scope."""
        if tf.executing_eagerly():
            return []
        begun = tf.no_op(name=f"{kind}_{stage}_{self.micro_batch}_begins")
        self._begun.setdefault((stage, Unit(kind, self.micro_batch)), []).append(begun)
        return [begun]

    def end(self, kind: Kind, stage: int, made: list[Any]) -> None:
        """A unit has made these tensors; in the unit's device scope."""
        if tf.executing_eagerly():
            return
        with tf.control_dependencies(made):
            ended = tf.no_op(name=f"{kind}_{stage}_{self.micro_batch}_ends")
        self._ended.setdefault((stage, Unit(kind, self.micro_batch)), []).append(ended)

    def keep(self) -> None:
        """Make the graph keep to the order; once all micro-batches are in it."""
        for stage in range(self._stages):
            for pipeline in range(self._pipelines):
                mine = range(pipeline, self._count, self._pipelines)
                units = [
                    (stage, Unit(kind, mine[index]))
                    for kind, index in self._order(stage, self._stages, len(mine))
                    if (stage, Unit(kind, mine[index])) in self._begun
                ]
                self._chain(units)

    def _chain(self, units: list[tuple[int, Unit]]) -> None:
        in_one_part = all(len(self._begun[unit]) == 1 for unit in units)
        for before, after in itertools.pairwise(units):
            if in_one_part or (before[1].kind, after[1].kind) == ("backward", "forward"):
                for begun in self._begun[after]:
                    let_wait(begun, self._ended[before])
