"""The step as a worker of one replica sees it: its batch is the global batch of its own optimizer step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.keras_packed_variables import Fetch


class WorkerStep(hooks.Step):
    """A step that shares nothing with other replicas; see `hooks.Step`.

    Args:
        worker: Index of the worker, an int32 scalar.
        fetch: The variables that the step reads.
    """

    def __init__(self, worker: tf.Tensor, fetch: Fetch) -> None:
        self.fetch = fetch
        self.in_keras = True
        self.local_loss = False
        self.is_concurrent = True
        self.seed_offset = worker
        self.assigned: list[Any] = []
        self.layer_losses: dict[int, tuple[Any, list[Any]]] = {}
        self.results: list[tuple[Any, Any]] = []

    def has_rows(self) -> tf.Tensor:
        """Always."""
        return tf.constant(True)

    def total_rows(self) -> tf.Tensor:
        """Not needed where the share is known."""
        return tf.constant(1.0)

    def row_share(self) -> tf.Tensor:
        """All rows."""
        return tf.constant(1.0)

    def all_reduce(self, value: tf.Tensor) -> tf.Tensor:
        """The value itself."""
        return value

    def mean(self, loss: tf.Tensor, divisor: tf.Tensor) -> tf.Tensor:
        """The loss itself."""
        return loss

    def row_mean(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss itself."""
        return loss

    def sum_factor(self) -> tf.Tensor:
        """1."""
        return tf.constant(1.0)

    def unreduced(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss itself."""
        return loss
