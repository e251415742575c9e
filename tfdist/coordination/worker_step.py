"""The step as one replica of a parameter-server job's worker sees it: its global batch is the worker's own batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdist._compat.keras_packed_variables import Fetch
from tfdist._compat.tensorflow_parameter_server import once_for_all_replicas
from tfdist.coordination.local_training import LocalTraining
from tfdist.coordination.pushes import Pulled, Pushes
from tfdist.coordination.worker_accumulation import WorkerAccumulation
from tfdist.gradients import ReplicaStep, all_reduce_gradients, count_rows, sum_over_replicas


def replica_index() -> int:
    """Which replica of its worker the code that is traced is for."""
    index = tf.distribute.get_replica_context().replica_id_in_sync_group
    return index if isinstance(index, int) else int(tf.get_static_value(index))


class Pull(NamedTuple):
    """What a step has read, and when: the version of the parameters, which was read before."""

    fetch: Fetch
    version: tf.Tensor


class WorkerStep(ReplicaStep):
    """A step beside those of other workers, which change the same variables; see `hooks.Step`.

    Args:
        data: The replica's part of the batch.
        worker: Index of the worker, an int32 scalar.
        pull: The variables that the step reads.
        pushes: Take the step's gradients; None where nothing is trained.
        accumulation: Takes them first; None if each step is an optimizer step.
        local: Trains the worker's own parameters; None if it has none.
    """

    def __init__(
        self,
        data: Any,
        worker: tf.Tensor,
        pull: Pull | None = None,
        pushes: Pushes | None = None,
        accumulation: WorkerAccumulation | None = None,
        local: LocalTraining | None = None,
    ) -> None:
        super().__init__(count_rows(data), in_keras=True)
        self.is_concurrent = True
        self.replica = replica_index()
        self.seed_offset = worker * self._replicas + self.replica
        self._pull, self._pushes, self._accumulation, self._local = pull, pushes, accumulation, local

    def apply_gradients(
        self, gradients: list[Any], variables: list[Any], update: Callable[[list[Any], list[Any]], None]
    ) -> None:
        """Push the gradients of all replicas, add them to those that wait for an optimizer step, or train with them."""
        pull, pushes, accumulation = self._pull, self._pushes, self._accumulation
        if pull is None or pushes is None:
            update(gradients, variables)
            return
        if accumulation is None:
            total = gradients if self._replicas == 1 else all_reduce_gradients(gradients, share=self.gradient_share())
            weight, local = self._batch_weight(), self._local
            if local is not None:
                once_for_all_replicas(self, lambda: local.step(total, variables, update, weight))
                return
            pulled = Pulled(pull.version, pull.fetch.values_of(variables))

            def push() -> None:
                with pull.fetch.updating():
                    pushes.push(total, variables, pulled, weight, update)

            once_for_all_replicas(self, push)
            return
        weight, divisor = self.micro_batch_weight()
        if self._replicas > 1:
            gradients = all_reduce_gradients(gradients, share=weight)
            weight, (divisor,) = tf.ones_like(weight), sum_over_replicas([divisor])
        once_for_all_replicas(
            self, lambda: accumulation.add(gradients, variables, update, weight, divisor, pull.version)
        )

    def _batch_weight(self) -> tf.Tensor:
        """Of the worker's batch among others': what its losses were divided by."""
        _, divisor = self.micro_batch_weight()
        return divisor if self._replicas == 1 else sum_over_replicas([divisor])[0]
