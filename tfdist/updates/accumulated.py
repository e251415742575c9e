"""Normalized changes of several steps (Hermans, Spanakis, Möckel, "Accumulated gradient normalization", 2017; ADAG)."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tfdist.updates.local_policy import Local, LocalPolicy


@dataclass(frozen=True)
class Accumulated(LocalPolicy):
    """A worker makes K steps by itself, from the centre's parameters c, and pushes their mean.

        x_0 = c;  x_k+1 = x_k - lr g(x_k), or what the optimizer makes of g;  c <- c + (x_K - x_0) / K

    The mean has the size of one step however many were made, so workers that push at different times pull the centre no
    further than one would; its direction is that of K. At the end of the data there may be fewer steps.

    `gradient_accumulation_steps` of the strategy instead adds up the K gradients at x_0, as one larger batch has them.

    Args:
        steps: K, of a worker.

    Raises:
        ValueError: it's less than 1.
    """

    steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps counts a worker's steps, 1 or more. Received: steps={self.steps!r}.")

    def steps_together(self, batch_rows: int) -> int:
        """See `LocalPolicy`."""
        return self.steps

    def step(self, local: Local) -> None:
        """See `LocalPolicy`."""
        local.update()
        local.meet_after(self.steps, lambda steps: self._meet(local, steps))

    def finish(self, local: Local) -> None:
        """See `LocalPolicy`."""
        local.meet_after(1, lambda steps: self._meet(local, steps))

    def _meet(self, local: Local, steps: tf.Tensor) -> None:
        pairs = zip(local.own, local.start, strict=True)
        changes = [own.read_value() - start.read_value() for own, start in pairs]
        local.add_to_centre([change / tf.cast(steps, change.dtype) for change in changes])
        local.pull()
