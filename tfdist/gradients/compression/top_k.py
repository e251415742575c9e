"""The largest elements of gradients."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfdist._compat.keras_optimizers import leaves_of
from tfdist.gradients.compression.compressor import Compressor, Stage, State, check_count, check_number
from tfdist.gradients.compression.exchange import Exchange
from tfdist.gradients.compression.packing import pack_sparse, unpack_sparse

#: The first part of the elements that is sent in the warm-up, and what each of its stages sends of the one before.
_WARM_UP = 0.25


@dataclasses.dataclass(frozen=True)
class TopK(Compressor):
    """Of each kernel's gradient the largest elements; the others add up until they are among them.

    With momentum m, of which replica r has u_r, and e_r what it owes:

        u_r <- m u_r + share_r g_r,   e_r <- e_r + u_r
        s_r  = the largest |e_r|, a `fraction` of each kernel
        sum  = sum_r e_r on s_r;      e_r and u_r are set to 0 on s_r

    The momentum goes here in place of into the optimizer (momentum correction), where it would push in the direction of
    elements that were sent long ago. Variables that are sent whole get it after the sum.

    Lin et al. 2018, "Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed Training",
    arXiv:1712.01887.

    Args:
        fraction: of a kernel's elements, above 0 and at most 1; one element at least.
        momentum: for `keras.optimizers.SGD` without its own; 0 with any optimizer.
        warmup_steps: optimizer steps in which the fraction falls from 1/4 by 4 at a time.
        min_size: see `Compressor`.

    Raises:
        TypeError, ValueError: an option is wrong.
    """

    shared: ClassVar[frozenset[str]] = frozenset({"momentum"})

    fraction: float = 0.01
    momentum: float = 0.0
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("fraction", self.fraction)
        check_number("momentum", self.momentum)
        check_count("warmup_steps", self.warmup_steps, 0)
        if not 0 < self.fraction <= 1:
            raise ValueError(
                f"Expected: fraction above 0 and at most 1. Received: fraction={self.fraction}. 0.01 sends one element "
                "in a hundred."
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"Expected: momentum in [0, 1). Received: momentum={self.momentum}. Correct it.")

    def check(self, optimizer: Any) -> None:
        """Momentum is applied once."""
        twice = [one.name for one in leaves_of(optimizer) if getattr(one, "momentum", 0.0)]
        if self.momentum and twice:
            raise ValueError(
                "Momentum is applied twice. Expected: an optimizer without momentum beside TopK(momentum=...). "
                f"Received: TopK(momentum={self.momentum}) and momentum in {twice}. Take SGD(momentum=0)."
            )

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Large ones; with momentum all, since it is applied here."""
        return self.momentum > 0 or self.is_large(shape)

    def initial_state(self, index: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Nothing is owed."""
        if not self.is_large(shape):
            return {"momentum": np.zeros(shape, np.float32)}
        names = ("error", "velocity") if self.momentum else ("error",)
        return {name: np.zeros(math.prod(shape), np.float32) for name in names}

    def stages(self) -> tuple[Stage, ...]:
        """The warm-up's fractions, evenly in its steps, and the one to stay."""
        fractions: list[float] = []
        while self.warmup_steps and (part := _WARM_UP ** (len(fractions) + 1)) > self.fraction:
            fractions.append(part)
        firsts = [self.warmup_steps * number // max(1, len(fractions)) for number in range(len(fractions))]
        parts = [*zip(firsts, fractions, strict=True), (self.warmup_steps if fractions else 0, self.fraction)]
        return tuple(Stage(first, lambda *given, part=part: self._reduce(part, *given)) for first, part in parts)

    def _reduce(
        self, fraction: float, values: list[tf.Tensor], states: list[State], exchange: Exchange
    ) -> tuple[list[tf.Tensor], list[State]]:
        large = [place for place, value in enumerate(values) if self.is_large(tuple(value.shape))]
        small = [place for place in range(len(values)) if place not in set(large)]
        sums: list[Any] = [None] * len(values)
        after: list[Any] = [None] * len(values)
        for place, total in zip(small, exchange.sum([values[place] for place in small]), strict=True):
            sums[place] = self.momentum * states[place]["momentum"] + total
            after[place] = {"momentum": sums[place]}
        owed, indices = [], []
        for place in large:
            debt, moved = self._owed(values[place], states[place])
            found = _largest(debt, fraction)
            owed.append(tf.gather(debt, found))
            indices.append(found)
            after[place] = {name: _without(one, found) for name, one in {"error": debt, **moved}.items()}
        sizes = [values[place].shape.num_elements() for place in large]
        for place, total in zip(large, _sum_sparse(owed, indices, sizes, exchange), strict=True):
            sums[place] = tf.reshape(total, values[place].shape)
        return sums, after

    def _owed(self, value: tf.Tensor, state: State) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        flat = tf.reshape(value, [-1])
        if not self.momentum:
            return state["error"] + flat, {}
        velocity = self.momentum * state["velocity"] + flat
        return state["error"] + velocity, {"velocity": velocity}


def _largest(flat: tf.Tensor, fraction: float) -> tf.Tensor:
    """Indices of the largest absolute values, ascending; of equal ones the first."""
    count = max(1, round(fraction * flat.shape.num_elements()))
    return tf.sort(tf.math.top_k(tf.abs(flat), count, sorted=False).indices)


def _without(flat: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    return tf.tensor_scatter_nd_update(flat, indices[:, tf.newaxis], tf.zeros(tf.shape(indices)))


def _sum_sparse(
    values: list[tf.Tensor], indices: list[tf.Tensor], sizes: list[int], exchange: Exchange
) -> list[tf.Tensor]:
    """Sums over all replicas of elements, in flat tensors of these sizes."""
    if not sizes:
        return []
    starts = np.cumsum([0, *sizes])
    at = tf.concat([tf.cast(one, tf.int64) + int(start) for one, start in zip(indices, starts, strict=False)], 0)
    message = pack_sparse(tf.concat(values, 0), at, int(starts[-1]))
    total = tf.zeros([int(starts[-1])])
    # One replica after another: within each indices are unique, so every device adds in this order.
    for one in exchange.gather(message):
        elements, places = unpack_sparse(one, at.shape.num_elements(), int(starts[-1]))
        total = tf.tensor_scatter_nd_add(total, places[:, tf.newaxis], elements)
    return tf.split(total, sizes)
