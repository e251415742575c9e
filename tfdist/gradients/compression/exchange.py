"""The messages of one step of compressed gradients, and their bytes."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from tfdist._compat.tensorflow_exchange import all_gather, can_exchange
from tfdist.gradients.reduction import sum_over_replicas
from tfdist.gradients.rounded_sum import sum_in_float32


@dataclasses.dataclass
class Traffic:
    """Bytes of one replica's messages in an optimizer step.

    Attributes:
        summed: that are added up in a ring.
        gathered: that every other replica receives.
    """

    summed: int = 0
    gathered: int = 0

    def sent(self, replicas: int) -> int:
        """Bytes that each replica sends: 2 (N - 1) / N of what is summed, N - 1 times what is gathered."""
        return round(2 * (replicas - 1) * self.summed / replicas) + (replicas - 1) * self.gathered


class Exchange:
    """Sums and gathers over all replicas; in replica context, each replica the same calls in the same order.

    Args:
        companions: tensors and IndexedSlices that are summed too, with the first sum.

    Attributes:
        traffic: of the messages so far; rows of IndexedSlices, whose number isn't known, are left out.
    """

    def __init__(self, companions: list[Any]) -> None:
        self._companions = companions
        self._sums: list[Any] | None = None
        self.traffic = Traffic()

    @property
    def replicas(self) -> int:
        """How many there are."""
        return tf.distribute.get_replica_context().num_replicas_in_sync

    def sum(self, values: list[tf.Tensor]) -> list[tf.Tensor]:
        """Each value's sum."""
        waiting = self._companions if self._sums is None else []
        self.traffic.summed += sum(map(bytes_of, (*values, *waiting)))
        sums = sum_over_replicas([*values, *waiting])
        if self._sums is None:
            self._sums = sums[len(values) :]
        return sums[: len(values)]

    def sum_cast(self, values: list[tf.Tensor], dtype: tf.DType) -> list[tf.Tensor]:
        """Each value's sum in float32, of values that are rounded to a dtype of 16 bits for the wire."""
        self.traffic.summed += sum(bytes_of(one) // 2 for one in values)
        return sum_in_float32(values, dtype)

    def gather(self, message: tf.Tensor) -> list[tf.Tensor]:
        """The messages of all replicas in their order.

        Args:
            message: int32 [length], of one length on all of them; every device can gather int32.
        """
        self.traffic.gathered += bytes_of(message)
        if self.replicas == 1:
            return [message]
        if can_exchange():
            return tf.split(all_gather(message), self.replicas)
        context = tf.distribute.get_replica_context()
        return tf.unstack(context.all_gather(message[tf.newaxis], axis=0), self.replicas)

    def companions(self) -> list[Any]:
        """Their sums."""
        if self._sums is None:
            self.sum([])
        return self._sums or []


def bytes_of(value: Any) -> int:
    """Bytes of a dense tensor; 0 where that isn't known."""
    if isinstance(value, tf.IndexedSlices) or not value.shape.is_fully_defined():
        return 0
    return value.shape.num_elements() * value.dtype.size
