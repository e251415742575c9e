"""The compressor that is chosen by measuring."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from tfdist.gradients.compression.cast import Cast
from tfdist.gradients.compression.compressor import Compressor, Stage, State, send_whole
from tfdist.gradients.compression.exchange import Exchange
from tfdist.gradients.compression.power_sgd import PowerSGD, reduce_low_rank

WHOLE, SIXTEEN_BITS, LOW_RANK = range(3)
#: The stages that are to stay: of these two, ones that know of nothing owed.
FOR_GOOD = {WHOLE: 3, SIXTEEN_BITS: 4, LOW_RANK: LOW_RANK}
#: What the ways are called in the log.
NAMES = ("NoCompression()", "Cast('bfloat16')", "PowerSGD(rank=4)")
#: How much faster than one that says more a way has to be. Rounding to 16 bits cost less than another seed; rank 4 cost
#: a transformer 0.09 of its loss at the same steps (docs/benchmarks.md), so it must allow many more of them.
_GAIN = {SIXTEEN_BITS: 0.98, LOW_RANK: 0.67}


@dataclasses.dataclass(frozen=True)
class Automatic(Compressor):
    """Whole, in 16 bits, or of low rank: what makes the step of this model on these machines fastest.

    The ways are used in turns in the first steps of `fit`, which `Measuring` times, from the start of a step to its
    end, so that computing, messages, link and the other workers are all in it. Whatever a way owes when another follows
    is sent along. Outside of `fit` nothing is measured, and gradients are sent whole.
    """

    shared: ClassVar[frozenset[str]] = frozenset({"factor", "choice", "decided"})
    #: The number that stands for all variables together among those of variables.
    ALL: ClassVar[int] = -1

    def initial_state(self, index: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Of all together the way that is in use, and whether it is to stay."""
        if index == self.ALL:
            return {"choice": np.zeros([], np.float32), "decided": np.zeros([], np.float32)}
        return PowerSGD().initial_state(index, shape) if PowerSGD().takes(shape) else {}

    def stages(self) -> tuple[Stage, ...]:
        """By their numbers, whatever step it is."""
        paying = tuple(Stage(0, reduce) for reduce in (_whole, _sixteen_bits, _low_rank))
        return (*paying, Stage(0, send_whole, keeps_states=False), Cast().stages()[0])


def choose(seconds: Sequence[Sequence[float]]) -> int:
    """The way to go on with.

    One that says less must be faster than one that says more: in the median by 2% for 16 bits, by a third for low rank,
    and in every turn, or a machine that is busy with something else for a while would decide.

    Args:
        seconds: of a step, by way and turn.
    """
    best = WHOLE
    for way, gain in _GAIN.items():
        always = all(one < other for one, other in zip(seconds[way], seconds[best], strict=True))
        if always and statistics.median(seconds[way]) < gain * statistics.median(seconds[best]):
            best = way
    return best


def _whole(values: list[tf.Tensor], states: list[State], exchange: Exchange) -> tuple[list[tf.Tensor], list[State]]:
    owed, after = _paid(values, states)
    return exchange.sum(owed), after


def _sixteen_bits(
    values: list[tf.Tensor], states: list[State], exchange: Exchange
) -> tuple[list[tf.Tensor], list[State]]:
    owed, after = _paid(values, states)
    return exchange.sum_cast(owed, tf.bfloat16), after


def _low_rank(values: list[tf.Tensor], states: list[State], exchange: Exchange) -> tuple[list[tf.Tensor], list[State]]:
    thin = [place for place, state in enumerate(states) if state]
    rest = [place for place, state in enumerate(states) if not state]
    sums, after = list(values), list(states)
    if thin:
        found = reduce_low_rank([values[place] for place in thin], [states[place] for place in thin], exchange)
        for place, total, state in zip(thin, *found, strict=True):
            sums[place], after[place] = total, state
    for place, total in zip(rest, exchange.sum([values[place] for place in rest]), strict=True):
        sums[place] = total
    return sums, after


def _paid(values: list[tf.Tensor], states: list[State]) -> tuple[list[tf.Tensor], list[State]]:
    """Values with what is owed, and states of nothing owed."""
    owed = [
        value + tf.reshape(state["error"], value.shape) if state else value
        for value, state in zip(values, states, strict=True)
    ]
    after: list[State] = [{**state, "error": tf.zeros_like(state["error"])} if state else state for state in states]
    return owed, after
