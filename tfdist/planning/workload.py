"""What is trained, as the cost model sees it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

#: Of a dense layer or a block of convolutions: the backward pass multiplies twice what the forward pass does once.
BACKWARD_SHARE = 2 / 3
#: Of parameters of which nothing but their number is known.
_VARIABLE_BYTES = 16e6


@dataclass(frozen=True)
class Workload:
    """One step of one replica.

    Args:
        compute_seconds: forward and backward pass and update, on one device and its share of the batch.
        variable_bytes: of each gradient, in the order of the layers.
        backward_share: of the backward pass in compute_seconds.
        backward_weights: how the time of the backward pass falls on the variables; alike if None.
        bucket_bytes: how many are exchanged together.
        small_exchanges: of a few numbers each, in a step, which nothing hides: the divisor of a loss, metrics.
    """

    compute_seconds: float
    variable_bytes: tuple[float, ...]
    backward_share: float = BACKWARD_SHARE
    backward_weights: tuple[float, ...] | None = None
    bucket_bytes: float = 4e6
    small_exchanges: int = 0

    @classmethod
    def of_parameters(cls, count: float, compute_seconds: float, *, bytes_each: float = 4.0) -> Workload:
        """A model of which only the number of parameters is known: equal variables."""
        total = count * bytes_each
        variables = max(1, math.ceil(total / _VARIABLE_BYTES))
        return cls(compute_seconds, (total / variables,) * variables)

    @property
    def gradient_bytes(self) -> float:
        """Of all gradients."""
        return sum(self.variable_bytes)

    def buckets(self) -> Iterator[tuple[float, float]]:
        """Of what is exchanged together: seconds before the end of the backward pass when it's there, and bytes.

        In the order in which the backward pass makes it; large gradients are cut, small ones joined.
        """
        weights = self.backward_weights or (1.0,) * len(self.variable_bytes)
        left = backward = self.backward_share * self.compute_seconds
        total = sum(weights)
        held = 0.0
        for size, weight in zip(reversed(self.variable_bytes), reversed(weights), strict=True):
            left -= backward * weight / total
            held += size
            while held >= self.bucket_bytes:
                yield max(left, 0.0), self.bucket_bytes
                held -= self.bucket_bytes
        if held:
            yield 0.0, held
