"""The step as one replica of a parameter-server job's worker sees it: its global batch is the worker's own batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdist._compat.keras_packed_variables import Fetch
from tfdist._compat.tensorflow_parameter_server import once_for_all_replicas
from tfdist.coordination.worker_accumulation import WorkerAccumulation
from tfdist.gradients import ReplicaStep, all_reduce_gradients, count_rows, sum_over_replicas


def replica_index() -> int:
    """Which replica of its worker the code that is traced is for."""
    index = tf.distribute.get_replica_context().replica_id_in_sync_group
    return index if isinstance(index, int) else int(tf.get_static_value(index))


class WorkerStep(ReplicaStep):
    """A step beside those of other workers, which change the same variables; see `hooks.Step`.

    Args:
        data: The replica's part of the batch.
        worker: Index of the worker, an int32 scalar.
        fetch: The variables that the step reads.
        accumulation: Takes the step's gradients; None if each step is an optimizer step.
    """

    def __init__(
        self, data: Any, worker: tf.Tensor, fetch: Fetch, accumulation: WorkerAccumulation | None = None
    ) -> None:
        super().__init__(count_rows(data), in_keras=True)
        self.is_concurrent = True
        self.replica = replica_index()
        self.seed_offset = worker * self._replicas + self.replica
        self._fetch, self._accumulation = fetch, accumulation

    def apply_gradients(
        self, gradients: list[Any], variables: list[Any], update: Callable[[list[Any], list[Any]], None]
    ) -> None:
        """Call `update` with the gradients of all replicas, or add them to those that wait for an optimizer step."""
        if self._accumulation is None:
            total = gradients if self._replicas == 1 else all_reduce_gradients(gradients, share=self.gradient_share())
            once_for_all_replicas(self, lambda: self._update(total, variables, update))
            return
        accumulation = self._accumulation
        weight, divisor = self.micro_batch_weight()
        if self._replicas > 1:
            gradients = all_reduce_gradients(gradients, share=weight)
            weight, (divisor,) = tf.ones_like(weight), sum_over_replicas([divisor])
        once_for_all_replicas(self, lambda: accumulation.add(gradients, variables, update, weight, divisor))

    def _update(
        self, gradients: list[Any], variables: list[Any], update: Callable[[list[Any], list[Any]], None]
    ) -> None:
        with self._fetch.updating():
            update(gradients, variables)
