"""Workers on elastic strings (Zhang, Choromanska, LeCun, "Deep learning with elastic averaging SGD", 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tfdist.updates.local_policy import Local, LocalPolicy


@dataclass(frozen=True)
class ElasticAveraging(LocalPolicy):
    """Each worker i keeps parameters x_i of its own, tied to the centre c on the parameter servers (EASGD).

        every `communicate_every_steps` of its steps    d = alpha (x_i - c);  x_i <- x_i - d;  c <- c + d
        every step                                      x_i <- x_i - lr g(x_i), or what the optimizer makes of g

    The gradient of a step is that at x_i before the worker met the centre. With `momentum` (EAMSGD) it is taken where
    the velocity v_i leads, and the optimizer, which should be plain SGD, makes the velocity's change:

        v_i <- momentum v_i - lr g(x_i + momentum v_i);  x_i <- x_i + v_i

    A `fit` begins with x_i = c. Workers share nothing but c, so one that fails costs its own x_i, and begins anew at c.

    Args:
        alpha: Part of the difference that both move, above 0 and below 1. The paper takes 0.9 / workers.
        communicate_every_steps: Of a worker; the paper takes 1 to 64, best 10.
        momentum: From 0, which is none, to below 1.

    Raises:
        ValueError: a value is out of its range.
    """

    alpha: float
    communicate_every_steps: int = 10
    momentum: float = 0.0

    keeps_parameters = True

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(
                "alpha is the part of the difference between worker and centre that both move, above 0 and below 1, "
                f"such as 0.9 / workers. Received: alpha={self.alpha!r}."
            )
        if not isinstance(self.communicate_every_steps, int) or self.communicate_every_steps < 1:
            raise ValueError(
                "communicate_every_steps counts a worker's steps, 1 or more. Received: communicate_every_steps="
                f"{self.communicate_every_steps!r}."
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is from 0 to below 1. Received: momentum={self.momentum!r}.")

    @property
    def has_velocity(self) -> bool:  # type: ignore[override]
        """See `LocalPolicy`."""
        return self.momentum > 0

    def step(self, local: Local) -> None:
        """See `LocalPolicy`."""
        local.meet_after(self.communicate_every_steps, lambda _: self._meet(local))
        if not self.has_velocity:
            local.update()
            return
        # What is kept is y = x + momentum v, where the gradient is taken.
        before = [own.read_value() for own in local.own]
        local.update()
        for own, velocity, y in zip(local.own, local.velocity, before, strict=True):
            old = velocity.read_value()
            new = self.momentum * old + (own.read_value() - y)
            velocity.assign(new, read_value=False)
            own.assign(y - self.momentum * old + new + self.momentum * new, read_value=False)

    def _meet(self, local: Local) -> None:
        differences = []
        velocities = [one.read_value() for one in local.velocity] or [None] * len(local.own)
        for own, velocity, centre in zip(local.own, velocities, local.read_centre(), strict=True):
            x = own.read_value() if velocity is None else own.read_value() - self.momentum * velocity
            differences.append(tf.cast(self.alpha, x.dtype) * (x - centre))
        for own, difference in zip(local.own, differences, strict=True):
            own.assign_sub(difference, read_value=False)
        local.add_to_centre(differences)
