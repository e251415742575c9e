"""Gradients moved to where the parameters are now (Zheng et al., "Asynchronous SGD with delay compensation", 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfdist._compat.keras_worker_variables import named_variable
from tfdist.updates.policy import Policy, Push

_DECAY = 0.95
_EPSILON = 1e-7


@dataclass(frozen=True)
class DelayCompensated(Policy):
    """The gradient at the parameters w of now, from that at the parameters w' that were read, to first order.

        g <- g + strength g * g * (w - w')

    g * g stands for the Hessian's diagonal. With `adaptive` (DC-ASGD-a) the strength is divided by the root of a
    running mean of g * g, which each worker keeps of its own gradients:

        m <- 0.95 m + 0.05 g * g
        g <- g + strength / sqrt(m + 1e-7) g * g * (w - w')

    Gradients of embeddings, and of variables in shards, are left as they are: of rows that few batches have in common,
    hardly any has changed since. The parameters travel once more for each push. There is no gradient accumulation with
    it: micro-batches are computed with parameters of several versions.

    Args:
        strength: lambda; the paper takes 0.04 without `adaptive`, 2 with it.
        adaptive: Whether the strength follows the gradients' size.

    Raises:
        ValueError: `strength` isn't positive.
    """

    strength: float = 2.0
    adaptive: bool = True

    needs_values = True

    def __post_init__(self) -> None:
        if not self.strength > 0:
            raise ValueError(f"strength must be positive. Received: strength={self.strength!r}.")

    def apply(self, push: Push) -> tf.Tensor:
        """See `Policy`."""
        moved = [
            self._moved(gradient, read, variable, f"{push.name}/{index}")
            for index, (gradient, read, variable) in enumerate(
                zip(push.gradients, push.read, push.variables, strict=True)
            )
        ]
        push.update(moved, push.variables)
        return tf.constant(True)

    def _moved(self, gradient: Any, read: tf.Tensor | None, variable: Any, name: str) -> Any:
        if read is None or not isinstance(gradient, tf.Tensor):
            return gradient
        square = tf.square(gradient)
        strength: Any = self.strength
        if self.adaptive:
            strength = self.strength * tf.math.rsqrt(self._mean_of(square, name) + _EPSILON)
        change = tf.cast(variable.value.read_value() - read, gradient.dtype)
        return gradient + strength * square * change

    def _mean_of(self, square: tf.Tensor, name: str) -> tf.Tensor:
        mean = named_variable(square.shape, square.dtype, f"{name}/mean_square")
        known = tf.raw_ops.VarIsInitializedOp(resource=mean.handle)
        before = tf.cond(known, mean.read_value, lambda: tf.zeros_like(square))
        after = _DECAY * before + (1 - _DECAY) * square
        mean.assign(after, read_value=False)
        return after
