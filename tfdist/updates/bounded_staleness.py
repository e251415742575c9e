"""No gradient older than a bound, as in a stale synchronous parallel parameter server.

Ho et al., "More effective distributed ML via a stale synchronous parallel parameter server", 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tfdist._compat.keras_optimizers import scaled_learning_rate
from tfdist.updates.policy import Policy, Push

_CHOICES = ("wait", "drop", "scale")


@dataclass(frozen=True)
class BoundedStaleness(Policy):
    """A gradient of staleness tau is applied as it is if tau <= max_staleness.

    What happens to the others is decided where they take their version, on the ps, so the bound holds whatever the
    workers do:

        "wait"     there are none: the next step begins only when it can make no other step's gradient older than
                   that. A fast worker waits for a slow one. (A step that was begun again since its worker failed can
                   apply twice and so age others: those few are dropped.)
        "drop"     not applied
        "scale"    w <- w - lr (max_staleness + 1) / (tau + 1) g(w')

    Args:
        max_staleness: 0 is one step at a time.
        when_exceeded: "wait", "drop" or "scale".

    Raises:
        ValueError: a value isn't one of these.
    """

    max_staleness: int
    when_exceeded: str = "wait"

    def __post_init__(self) -> None:
        if not isinstance(self.max_staleness, int) or self.max_staleness < 0:
            raise ValueError(
                f"max_staleness counts optimizer steps, 0 or more. Received: max_staleness={self.max_staleness!r}."
            )
        if self.when_exceeded not in _CHOICES:
            raise ValueError(
                f"when_exceeded is one of {', '.join(map(repr, _CHOICES))}. Received: when_exceeded="
                f"{self.when_exceeded!r}."
            )

    @property
    def waits_at(self) -> int | None:  # type: ignore[override]
        """See `Policy`."""
        return self.max_staleness if self.when_exceeded == "wait" else None

    @property
    def drops(self) -> bool:  # type: ignore[override]
        """See `Policy`."""
        return self.when_exceeded != "scale"

    def apply(self, push: Push) -> tf.Tensor:
        """See `Policy`."""
        if self.when_exceeded == "scale":
            excess = (self.max_staleness + 1) / (push.staleness + 1)
            with scaled_learning_rate(push.optimizer, tf.cast(tf.minimum(excess, 1.0), tf.float32)):
                push.update(push.gradients, push.variables)
            return tf.constant(True)
        is_young = push.staleness <= self.max_staleness

        def apply() -> tf.Tensor:
            push.update(push.gradients, push.variables)
            return tf.constant(0)

        tf.cond(is_young, apply, lambda: tf.constant(0))
        return is_young
