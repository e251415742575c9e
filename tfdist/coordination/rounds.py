"""Optimizer steps of several workers' gradients, made by the chief when enough have come.

A round is an optimizer step. An execution belongs to the round in which it began, since that's whose parameters it
reads; what lands after its round has been closed is late.
"""

from __future__ import annotations

import itertools
from typing import Any

import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.tensorflow_parameter_server import in_one_replica, tracing_for_workers
from tfdist.coordination.pushes import Pushes
from tfdist.coordination.worker_step import WorkerStep

# Of all jobs that a ps may serve in its life.
_numbers = itertools.count(1)


class Rounds:
    """Of one strategy.

    Args:
        strategy: ParameterServerStrategy.
        needed: Gradients of an optimizer step.
        workers: How many there are.
    """

    def __init__(self, strategy: Any, needed: int, workers: int) -> None:
        self._strategy, self._needed, self._workers = strategy, needed, workers
        self._round = self._begun = 0
        #: In which round executions began that have not landed.
        self._under_way: dict[int, int] = {}
        self._arrived: list[int] = []
        #: Steps behind what has arrived.
        self._steps = 0
        self._pushes: Pushes | None = None
        self._functions: dict[tuple[int, str, int], Any] = {}

    def gate(self) -> bool:
        """Whether the round has to be closed before another execution may begin."""
        return self._begun >= self._workers or len(self._under_way) >= self._workers

    def begin(self) -> int:
        """The number of an execution that begins."""
        number = next(_numbers)
        self._under_way[number] = self._round
        self._begun += 1
        return number

    def landed(self, number: int, steps: int, pushes: Pushes | None) -> int:
        """Take note of it; by how many rounds it was late."""
        late = self._round - self._under_way.pop(number)
        if not steps or pushes is None:
            self._begun -= not late
            return 0
        self._pushes = pushes
        if late:
            self._call(pushes, "drop", [number])
            return late
        self._arrived.append(number)
        self._steps += steps
        if len(self._arrived) == self._needed:
            self.close()
        return 0

    def close(self) -> None:
        """Make an optimizer step of what has come, if anything has."""
        arrived, self._arrived = sorted(self._arrived), []
        if arrived and self._pushes is not None:
            self._call(self._pushes, "apply", arrived)
            self._strategy.count_steps(self._pushes.optimizer, self._steps)
        self._steps = 0
        self._round += 1
        self._begun = 0

    def forget(self) -> None:
        """What an interrupted `fit` has left; none of its executions is under way any more."""
        if self._pushes is not None:
            self._call(self._pushes, "clear", [])
        self._arrived, self._under_way = [], {}
        self.close()

    def _call(self, pushes: Pushes, what: str, numbers: list[int]) -> None:
        key = (id(pushes), what, len(numbers))
        if key not in self._functions:
            call = getattr(_Chief(self._strategy, pushes), what)
            with tracing_for_workers(self._strategy):
                traced = tf.function(tf.autograph.experimental.do_not_convert(call))
                # The pushes are kept, so that no others get their id.
                self._functions[key] = pushes, traced.get_concrete_function(tf.TensorSpec([len(numbers)], tf.int64))
        self._functions[key][1](tf.constant(numbers, tf.int64))


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
        for mailbox, _update in self._pushes.collected:
            mailbox.clear()
        return tf.constant(0)
