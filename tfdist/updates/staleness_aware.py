"""Smaller steps for older gradients (Zhang et al., "Staleness-aware async-SGD for distributed deep learning", 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tfdist._compat.keras_optimizers import scaled_learning_rate
from tfdist.updates.policy import Policy, Push


@dataclass(frozen=True)
class StalenessAware(Policy):
    """The learning rate is divided by the staleness tau.

        w <- w - lr / max(1, tau) g(w')

    It is the rate of the optimizer's own rule that is divided, so with Adam too a gradient twice as old moves the
    parameters half as far. Jiang et al. ("Heterogeneity-aware distributed parameter servers", DynSGD, 2017) divide by
    tau + 1: `StalenessAware(offset=1)`.

    Args:
        offset: Added to the staleness; 0 or 1.

    Raises:
        ValueError: it's another number.
    """

    offset: int = 0

    def __post_init__(self) -> None:
        if self.offset not in (0, 1):
            raise ValueError(f"offset is 0 (staleness-aware SGD) or 1 (DynSGD). Received: offset={self.offset!r}.")

    def apply(self, push: Push) -> tf.Tensor:
        """See `Policy`."""
        divisor = tf.maximum(push.staleness + self.offset, 1)
        with scaled_learning_rate(push.optimizer, 1.0 / tf.cast(divisor, tf.float32)):
            push.update(push.gradients, push.variables)
        return tf.constant(True)
