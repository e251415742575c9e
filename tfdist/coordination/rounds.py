"""Optimizer steps of several workers' gradients, made by the chief when enough have come.

A round is an optimizer step. An execution belongs to the round in which it began, since that's whose parameters it
reads; what lands after its round has been closed is late.

order of events
    begin      an execution gets its number; the gate holds up the next one while the round has as many as workers
    landed     its gradients lie on the ps, under its number
    close      enough have landed: the chief has the ps take them out and make one optimizer step of their mean
    landed     late: the chief has the ps drop them
    end        the epoch is over: a step of what is left, however few

what fails                                  what is left under its number
a worker dies before its gradients came     nothing; the worker that makes the execution again leaves some
it dies after, or comes back later          what came first; the others are not taken in
it comes back when the round is closed      gradients that nobody asks for, until the end of the epoch
a `fit` is interrupted                      gradients that nobody asks for, until the next one begins
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.tensorflow_parameter_server import in_one_replica, tracing_for_workers
from tfdist.cluster import Cluster
from tfdist.coordination.faults import explained
from tfdist.coordination.pushes import Pushes
from tfdist.coordination.worker_step import WorkerStep

# Of all jobs that a ps may serve in its life.
_numbers = itertools.count(1)


class _Begun(NamedTuple):
    """In which round, and what takes its gradients."""

    round: int
    pushes: Pushes


class Rounds:
    """Of one strategy.

    Args:
        strategy: In whose scope the chief makes a step.
        cluster: Of the job.
        needed: Gradients of an optimizer step.
        count_steps: Called with the optimizer and the workers' steps behind an optimizer step that was made.
    """

    def __init__(self, strategy: Any, cluster: Cluster, needed: int, count_steps: Callable[[Any, int], None]) -> None:
        self._strategy, self._cluster, self._needed, self._count_steps = strategy, cluster, needed, count_steps
        self._workers = len(cluster.addresses("worker"))
        self._round = self._begun = 0
        #: Executions that have not landed, by number.
        self._under_way: dict[int, _Begun] = {}
        #: Whose gradients the round has.
        self._arrived: list[int] = []
        #: Steps behind what has arrived.
        self._steps = 0
        self._arrived_of: Pushes | None = None
        #: Where gradients may lie that nobody asks for.
        self._used: dict[int, Pushes] = {}

    def gate(self) -> bool:
        """Whether something has to land before another execution may begin.

        A worker that is still at an earlier round counts, so that nobody makes its gradient in its place: that would be
        late too, and hold up who made it. There are no more of them than backup workers: the others are enough.
        """
        late = sum(begun.round < self._round for begun in self._under_way.values())
        return self._begun + late >= self._workers

    def begin(self, pushes: Pushes) -> int:
        """The number of an execution that begins, with such pushes."""
        # Not when they are needed: all workers are told of a new function, and one that is stopped doesn't answer.
        for what, count in (("apply", self._needed), ("drop", 1), ("clear", 0)):
            self._function(pushes, what, count)
        number = next(_numbers)
        self._under_way[number] = _Begun(self._round, pushes)
        self._used[id(pushes)] = pushes
        self._begun += 1
        return number

    def landed(self, number: int, steps: int) -> int:
        """Take note of it; by how many rounds it was late."""
        begun = self._under_way.pop(number)
        late = self._round - begun.round
        if not steps:
            self._begun -= not late
            return 0
        if late:
            self._call(begun.pushes, "drop", [number])
            return late
        self._arrived.append(number)
        self._steps += steps
        # Whichever of a step's functions: their gradients lie in the same place.
        self._arrived_of = begun.pushes
        if len(self._arrived) == self._needed:
            self.close()
        return 0

    def close(self) -> None:
        """Make an optimizer step of what has come, if anything has."""
        arrived, self._arrived = sorted(self._arrived), []
        if arrived and self._arrived_of is not None:
            self._call(self._arrived_of, "apply", arrived)
            self._count_steps(self._arrived_of.optimizer, self._steps)
        self._steps = 0
        self._round += 1
        self._begun = 0

    def end(self) -> None:
        """None is under way any more, and what has begun belongs together: an epoch, or one batch."""
        self.close()
        self._clear()

    def forget(self) -> None:
        """What an interrupted `fit` has left; none of its executions is under way any more."""
        self._arrived, self._under_way = [], {}
        self.end()

    def _clear(self) -> None:
        used, self._used = self._used, {}
        for pushes in used.values():
            self._call(pushes, "clear", [])

    def _call(self, pushes: Pushes, what: str, numbers: list[int]) -> None:
        with explained(self._cluster):
            self._function(pushes, what, len(numbers))(tf.constant(numbers, tf.int64))

    def _function(self, pushes: Pushes, what: str, count: int) -> Any:
        """What does it to so many executions' gradients."""
        key = what, count
        if key not in pushes.on_chief:
            call = getattr(_Chief(self._strategy, pushes), what)
            with tracing_for_workers(self._strategy):
                traced = tf.function(tf.autograph.experimental.do_not_convert(call))
                pushes.on_chief[key] = traced.get_concrete_function(tf.TensorSpec([count], tf.int64))
        return pushes.on_chief[key]


class _Chief:
    """What the chief does with gradients on the ps."""

    def __init__(self, strategy: Any, pushes: Pushes) -> None:
        self._strategy, self._pushes = strategy, pushes

    def apply(self, numbers: tf.Tensor) -> tf.Tensor:
        """An optimizer step."""
        with in_one_replica(self._strategy), hooks.step_scope(WorkerStep(None, tf.constant(0))):
            for mailbox, update in self._pushes.collected:
                update(mailbox.take_mean(tf.unstack(numbers)), mailbox.variables)
        return tf.constant(0)

    def drop(self, numbers: tf.Tensor) -> tf.Tensor:
        """Forget gradients."""
        for mailbox, _ in self._pushes.collected:
            mailbox.drop(numbers[0])
        return tf.constant(0)

    def clear(self, numbers: tf.Tensor) -> tf.Tensor:
        """Forget all gradients."""
        for mailbox, _ in self._pushes.collected:
            mailbox.clear()
        return tf.constant(0)
