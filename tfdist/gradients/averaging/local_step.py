"""A step that a replica makes by itself: nothing is asked of the others, neither rows nor divisors of losses."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdist.gradients.step import ReplicaStep, weight_dtype


class LocalStep(ReplicaStep):
    """The step of one replica as if it were alone; made in replica context.

    A mean is over the replica's own rows. Where a share of the global batch is asked for (losses that are sums), it is
    1 / replicas, which is exact where batches divide evenly.
    """

    def __init__(self, rows: tf.Tensor | None, *, in_keras: bool, ends_batch: tf.Tensor | None = None) -> None:
        super().__init__(rows, in_keras=in_keras, ends_batch=ends_batch)
        self._noted = _Assigned(self)
        self.assigned = self._noted

    def own_graph(self) -> Any:
        """The graph that the replica's step is traced in; None when it runs eagerly."""
        return self._graph

    def keep_without_rows(self, variables: list[Any]) -> None:
        """Undo what the step has assigned to these Keras variables, if this replica has no rows.

        What layers saw then was a row of zeros that stands for none.
        """
        if tf.get_static_value(self.has_rows()):
            return
        for variable in variables:
            before = self._noted.before.get(id(variable))
            if before is not None:
                variable.assign(tf.where(self.has_rows(), variable.value, before))

    def _can_reduce(self) -> bool:
        return False

    def total_rows(self) -> tf.Tensor:
        """An estimate of n: as if all replicas had as many rows as this one."""
        return self.rows() * tf.cast(self._replicas, weight_dtype())

    def rows(self) -> tf.Tensor:
        """n_r, a float scalar; 1 where no rows are known, so that all replicas count alike."""
        return tf.constant(1.0, weight_dtype()) if self._rows is None else self._rows

    def gradient_share(self) -> tf.Tensor | None:
        """What this replica's gradients are multiplied with.

        None, for 1, in Keras' steps, whose losses are the replica's own means. In a custom loop losses carry a share
        of 1 / replicas, which is undone: a local step is a whole step.
        """
        return None if self.in_keras else tf.constant(float(self._replicas), weight_dtype())

    def all_reduce(self, value: tf.Tensor) -> tf.Tensor:
        """Refused.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "Layers that mix replicas in their forward pass need an exchange in every step, which local steps avoid. "
            "Expected: layers of one replica, such as BatchNormalization(synchronized=False), whose statistics are "
            f"averaged with the weights. Received: a layer that sums value={value} over the replicas. Change the "
            "layer, or use MirroredStrategy or MultiWorkerMirroredStrategy."
        )


class _Assigned(list[Any]):
    """Keras variables that were assigned in a step.

    Args:
        step: the step.

    Attributes:
        before: values before the first assignment, by id of the variable; without those that were assigned in a
            function or conditional inside the step, where only that function could use the value.
    """

    def __init__(self, step: LocalStep) -> None:
        super().__init__()
        self._step = step
        self.before: dict[int, tf.Tensor] = {}

    def append(self, variable: Any) -> None:
        """Called before the variable is assigned."""
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        if id(variable) not in self.before and graph is self._step.own_graph():
            self.before[id(variable)] = tf.identity(variable.value)
        super().append(variable)
