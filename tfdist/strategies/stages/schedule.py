"""In which order a stage does its units, and how a graph is made to keep to it.

Both orders give the same gradients and take the same time: with S stages and M micro-batches the last stage begins
S - 1 units late and the first one ends with the last gradient, so that each stands still for (S - 1) / (M + S - 1) of
the time. They differ in how many micro-batches are in flight: M, or at most S.

References:
    Huang et al. 2019, "GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism", NeurIPS,
    arXiv:1811.06965.
    Narayanan et al. 2019, "PipeDream: Generalized Pipeline Parallelism for DNN Training", SOSP, arXiv:1806.03377, and
    2021, arXiv:2006.09503: 1F1B, here with a flush after each batch, so that no gradient is stale.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from tfdist._compat.tensorflow_control_inputs import let_wait
from tfdist._compat.tensorflow_staged_replicas import replica_index
from tfdist.strategies.stages.clock import NoClock, Place

Kind = Literal["forward", "backward"]
KINDS: tuple[Kind, Kind] = ("forward", "backward")


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


@dataclass(frozen=True)
class Schedule:
    """How stages take turns.

    Attributes:
        order: the units of a stage, from its index, the number of stages, and the number of micro-batches.
        backward_waits: whether a backward unit waits for the forward units before it, although it could begin; nothing
            is gained by it but the order.
    """

    order: Callable[[int, int, int], list[Unit]]
    backward_waits: bool


#: By the name that a user gives.
SCHEDULES = {"1f1b": Schedule(one_forward_one_backward, False), "gpipe": Schedule(gpipe, True)}


def most_in_flight(units: list[Unit]) -> int:
    """Micro-batches whose activations a stage holds at a time, at most."""
    return max(itertools.accumulate(1 if unit.kind == "forward" else -1 for unit in units))


class Timetable:
    """The units of one batch while its graph is made.

    Each unit begins at one operation and ends at one. Units of a kind follow each other, and a forward unit waits for
    the backward one before it, which bounds what is in flight. These point from what was traced to what is traced
    later, as the order of assignments to a variable does, so there is no circle whatever layers do. Where backward
    units wait for forward ones that are traced after them, there would be one if a layer's forward pass read what
    another's backward pass assigns.

    A train step that runs the model more than once has several parts of a unit, of which a forward one may need a
    backward one of the same micro-batch, so there backward units don't wait.

    Args:
        schedule: of each stage.
        stages: of the model.
        pipelines: side by side, each of which has micro-batches of its own.
        micro_batches: of a pipeline's part of the batch.
        clock: notes when units begin and end.
    """

    def __init__(self, schedule: Schedule, stages: int, pipelines: int, micro_batches: int, clock: NoClock) -> None:
        self._schedule, self._stages, self._pipelines, self._count = schedule, stages, pipelines, micro_batches
        self._clock = clock
        self._begun: dict[Place, list[Any]] = {}
        self._ended: dict[Place, list[Any]] = {}
        #: Which micro-batch is traced now.
        self.micro_batch = 0

    def begin(self, kind: Kind, stage: int, values: list[Any]) -> list[Any]:
        """A unit's inputs as its device has them, once it may begin; in the unit's device scope."""
        if tf.executing_eagerly():
            return values
        place = self._place(kind, stage)
        begun = tf.no_op(name=f"{kind}_{stage}_{self.micro_batch}_begins")
        self._begun.setdefault(place, []).append(begun)
        with tf.control_dependencies([begun]):
            return self._clock.begins(place, [tf.identity(x) if tf.is_tensor(x) else x for x in values])

    def end(self, kind: Kind, stage: int, made: list[Any]) -> list[Any]:
        """What a unit has made, as others may have it; in the unit's device scope."""
        if tf.executing_eagerly():
            return made
        place = self._place(kind, stage)
        ended, values = self._clock.ends(place, tf.nest.flatten(made, expand_composites=True))
        self._ended.setdefault(place, []).append(ended)
        return list(tf.nest.pack_sequence_as(made, values, expand_composites=True))

    def keep(self) -> None:
        """Make the graph keep to the schedule; once all micro-batches are in it."""
        for pipeline, stage in itertools.product(range(self._pipelines), range(self._stages)):
            order = self._schedule.order(stage, self._stages, self._count)
            places = [Place(pipeline, stage, KINDS.index(kind), index) for kind, index in order]
            self._chain([place for place in places if place in self._begun])
        self._clock.keep()

    def _place(self, kind: Kind, stage: int) -> Place:
        return Place(replica_index(), stage, KINDS.index(kind), self.micro_batch)

    def _chain(self, places: list[Place]) -> None:
        backward_waits = self._schedule.backward_waits and all(len(self._begun[place]) == 1 for place in places)
        last: dict[Kind, Place] = {}
        for place in places:
            kind = KINDS[place.kind]
            waits = [before for one, before in last.items() if one == kind or kind == "forward" or backward_waits]
            for begun in self._begun[place]:
                let_wait(begun, [ended for before in waits for ended in self._ended[before]])
            last[kind] = place
