"""How far an averaging is: local steps, rows, and averagings done."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfdist.gradients.slots import local_variable
from tfdist.gradients.step import weight_dtype


class Counters:
    """Made in the strategy's scope.

    Args:
        fragments: how many parts are averaged each at its time.

    Attributes:
        position: local steps since all fragments were averaged together, an int64 scalar; decides which is due.
        steps: local steps since each fragment was averaged, int64 [fragments].
        rows: of this replica since each fragment was averaged, float [fragments]; each replica has its own.
        exchanges: steps after which replicas knew of each other: averagings, and synchronous steps; an int64 scalar.
        averagings: of fragments, an int64 scalar.
    """

    def __init__(self, fragments: int) -> None:
        self.position = _counter(np.int64(0), "local_steps")
        self.steps = _counter(np.zeros([fragments], np.int64), "local_steps_of_fragments")
        self.rows = local_variable(tf.zeros([fragments], weight_dtype()), "rows_since_averaging")
        self.exchanges = _counter(np.int64(0), "exchanges")
        self.averagings = _counter(np.int64(0), "averagings")

    def count_step(self) -> None:
        """A local step was made by all replicas; in cross-replica context."""
        self.position.assign_add(1)
        self.steps.assign_add(tf.ones_like(self.steps))

    def count_rows(self, rows: tf.Tensor) -> None:
        """This replica's rows of a local step; in each replica."""
        self.rows.assign_add(tf.fill(self.rows.shape, rows))

    def end_period(self, fragment: int, steps: int | None = None) -> None:
        """A fragment was averaged; in cross-replica context.

        Args:
            fragment: which.
            steps: those that the averaging is of, if training has gone on since; None for all.
        """
        done = self.steps.read_value()
        self.steps.assign_sub(_only(done, fragment) * (done if steps is None else steps))
        self.averagings.assign_add(1)
        self.exchanges.assign_add(1)

    def forget_rows(self, fragment: int) -> None:
        """Rows count from here; in each replica."""
        rows = self.rows.read_value()
        self.rows.assign_sub(_only(rows, fragment) * rows)

    def is_pending(self) -> bool:
        """Whether there are local steps that were not averaged; eagerly, the same on all workers."""
        return bool(np.any(self.steps.numpy()))


def _only(values: tf.Tensor, place: int) -> tf.Tensor:
    return tf.one_hot(place, values.shape[0], dtype=values.dtype)


def _counter(value: np.ndarray, name: str) -> tf.Variable:
    return tf.Variable(value, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA, name=name)
