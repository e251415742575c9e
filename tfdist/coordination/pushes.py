"""Pushes of one worker's function: each takes its version on the ps, goes through the policy, and is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdist._compat.keras_worker_variables import named_variable
from tfdist.coordination.mailbox import Mailbox
from tfdist.coordination.staleness import BINS
from tfdist.updates import Policy, Push

Update = Callable[[list[Any], list[Any]], None]


class Versions:
    """The count of pushes, on a ps; read and added to by all workers.

    Args:
        strategy: In whose scope it is made.
    """

    def __init__(self, strategy: Any) -> None:
        with strategy.scope():
            self._count = tf.Variable(0, dtype=tf.int64, trainable=False, name="tfdist_version")

    def read(self) -> tf.Tensor:
        """Pushes that took their turn so far, an int64 scalar."""
        return self._count.read_value()

    def take(self) -> tf.Tensor:
        """The next version, which nobody else gets."""
        with tf.device(self._count.device):
            # In one step; an addition and a read of the sum could give two workers the same.
            return tf.raw_ops.ResourceCountUpTo(resource=self._count.handle, limit=tf.int64.max, T=tf.int64)


class Pulled(NamedTuple):
    """Parameters as a step read them: their version, read before, and their values as far as they're needed."""

    version: tf.Tensor
    values: list[tf.Tensor | None]


class Pushes:
    """Made while a worker's function is traced.

    Args:
        policy: What is done with a push.
        versions: Of the job.
        optimizer: Keras optimizer.
        name: Of variables on the worker.
        box: Name of where the gradients wait on the ps for an optimizer step of several workers, whichever of a step's
            functions they come from; None where each push is a step.
    """

    def __init__(self, policy: Policy, versions: Versions, optimizer: Any, name: str, *, box: str | None) -> None:
        self.policy, self._versions, self.optimizer, self._name = policy, versions, optimizer, name
        self._box = box
        self._begun = 0
        #: Of the execution that is traced.
        self._number: tf.Tensor | None = None
        #: Where gradients wait, and what is to be called with their mean, in the order of the step's calls.
        self.collected: list[tuple[Mailbox, Update]] = []
        #: Functions of the chief for them, by what they do to how many executions' gradients.
        self.on_chief: dict[tuple[str, int], Any] = {}

    @property
    def collects(self) -> bool:
        """Whether gradients wait for those of other workers."""
        return self._box is not None

    def begin(self, number: tf.Tensor) -> None:
        """Before the first step of an execution."""
        self._number = number
        self._counts().assign(tf.zeros([BINS + 3], tf.int64), read_value=False)

    def read_version(self) -> tf.Tensor:
        """Before a step reads the parameters."""
        return self._versions.read()

    def push(self, gradients: list[Any], variables: list[Any], pulled: Pulled, weight: Any, update: Update) -> None:
        """Trace one push.

        Args:
            gradients, variables, update: See `tfdist.updates.Push`.
            pulled: What they were computed with.
            weight: Of the gradients among those of other workers, a scalar.
        """
        if self.collects:
            self.collect(gradients, variables, weight, update)
            return
        staleness = self._take(gradients) - pulled.version
        number, self._begun = self._begun, self._begun + 1
        name = f"{self._name}/push/{number}"
        applied = self.policy.apply(Push(gradients, variables, pulled.values, staleness, self.optimizer, update, name))
        self._count(staleness, applied)

    def collect(self, gradients: list[Any], variables: list[Any], weight: Any, update: Update) -> None:
        """Leave them on the ps, where the chief takes their mean among all of a round for `update`."""
        mailbox = Mailbox(f"{self._box}/{len(self.collected)}", gradients, variables)
        self.collected.append((mailbox, update))
        mailbox.put(self._number, gradients, weight)

    def arrive(self, changes: list[Any], version: tf.Tensor) -> tf.Tensor:
        """Take note of changes that are about to be added to parameters read at a version; the version they take."""
        taken = self._take(changes)
        self._count(taken - version, tf.constant(True))
        return taken

    def _take(self, gradients: list[Any]) -> tf.Tensor:
        flat = [one for one in tf.nest.flatten(gradients, expand_composites=True) if one is not None]
        with tf.control_dependencies(flat):
            return self._versions.take()

    def _count(self, staleness: tf.Tensor, applied: tf.Tensor) -> None:
        counts = self._counts()
        before = counts.read_value()
        places = tf.one_hot(tf.minimum(staleness, BINS - 1), BINS, dtype=tf.int64)
        largest = tf.maximum(before[-2], staleness)
        dropped = before[-1] + tf.cast(tf.logical_not(applied), tf.int64)
        after = tf.concat([before[:BINS] + places, [before[-3] + staleness, largest, dropped]], 0)
        counts.assign(after, read_value=False)

    def report(self) -> tf.Tensor:
        """Counts by staleness, their total, the largest, and how many were dropped; int64 [BINS + 3]."""
        return self._counts().read_value()

    def _counts(self) -> Any:
        return named_variable([BINS + 3], tf.int64, f"{self._name}/staleness")
