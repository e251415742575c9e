"""The step as a worker of a parameter-server job sees it: its batch is the global batch of its own optimizer step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdist._compat.keras_packed_variables import Fetch
from tfdist.coordination.worker_accumulation import WorkerAccumulation
from tfdist.gradients import ReplicaStep, count_rows


class WorkerStep(ReplicaStep):
    """A step beside those of other workers, which change the same variables; see `hooks.Step`.

    Args:
        data: The batch.
        worker: Index of the worker, an int32 scalar.
        fetch: The variables that the step reads.
        accumulation: Takes the step's gradients; None if each step is an optimizer step.
    """

    def __init__(
        self, data: Any, worker: tf.Tensor, fetch: Fetch, accumulation: WorkerAccumulation | None = None
    ) -> None:
        super().__init__(count_rows(data), in_keras=True)
        self.is_concurrent = True
        self.seed_offset = worker
        self.fetch, self.accumulation = fetch, accumulation
