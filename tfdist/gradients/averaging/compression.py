"""What crosses the wire in place of float32 when replicas average; one class for each way.

With share_r the row shares, which add up to 1, and d_r what replica r has:

    exact       sum_r share_r d_r, in the values' own precision, float32 at least
    bfloat16    the same sum of values rounded to bfloat16, half the bytes. With u = 2^-8 and N replicas each term is
                rounded once and so is each of N-1 sums: off by at most N u (1 + u)^N sum_r |share_r d_r|
    int8        d_r as integers of -127..127 times max|d_r| / 127 of its tensor, gathered, and summed in float32. An
                element is off by at most sum_r share_r max|d_r| / 254, and float32 rounding. Every replica receives
                N - 1 bytes an element, where an all-reduce in float32 costs it 8 (N - 1) / N: a gain below 8 replicas

or any compressor of gradients, given share_r d_r, with what it owes kept from averaging to averaging.
"""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow as tf

from tfdist.gradients.compression import Compressor
from tfdist.gradients.compression.compressor import State
from tfdist.gradients.compression.exchange import Exchange
from tfdist.gradients.reduction import sum_over_replicas, weighted
from tfdist.gradients.slots import local_variable

_HALF = (tf.float16, tf.bfloat16)


class Wire(Protocol):
    """How values travel."""

    @property
    def owed(self) -> list[tuple[tf.Variable, bool]]:
        """What each replica keeps from one averaging to the next; whether it adds up over replicas, by variable."""

    def mean(self, values: list[tf.Tensor], share: tf.Tensor) -> list[tf.Tensor]:
        """The share-weighted mean of each value over the replicas, the same bits on all; in replica context."""


class Stateless:
    """Keeps nothing."""

    @property
    def owed(self) -> list[tuple[tf.Variable, bool]]:
        """Nothing."""
        return []


class Exact(Stateless):
    """As they are; halves as float32, whose sums would lose digits."""

    def mean(self, values: list[tf.Tensor], share: tf.Tensor) -> list[tf.Tensor]:
        """The mean, in one all-reduce for each dtype."""
        wide = [weighted(tf.cast(v, tf.float32) if v.dtype in _HALF else v, share) for v in values]
        return [tf.cast(total, v.dtype) for total, v in zip(sum_over_replicas(wide), values, strict=True)]


class BFloat16(Stateless):
    """Rounded to bfloat16."""

    def mean(self, values: list[tf.Tensor], share: tf.Tensor) -> list[tf.Tensor]:
        """The mean, in one all-reduce."""
        rounded = [tf.cast(weighted(v, share), tf.bfloat16) for v in values]
        return [tf.cast(total, v.dtype) for total, v in zip(sum_over_replicas(rounded), values, strict=True)]


class Int8(Stateless):
    """Integers of eight bits, with one scale for each tensor and replica."""

    def mean(self, values: list[tf.Tensor], share: tf.Tensor) -> list[tf.Tensor]:
        """The mean, in one all-gather."""
        floats = [tf.cast(v, tf.float32) for v in values]
        scales = tf.stack([tf.reduce_max(tf.abs(v)) / 127.0 for v in floats])
        integers = [tf.reshape(tf.round(tf.math.divide_no_nan(v, scales[i])), [-1]) for i, v in enumerate(floats)]
        bits = _packed(tf.cast(tf.concat(integers, 0), tf.int8))
        header = tf.concat([scales, [tf.cast(share, tf.float32)]], 0)
        message = tf.concat([tf.bitcast(header, tf.int32), bits], 0)
        messages = _gathered(message)
        return [tf.cast(mean, v.dtype) for mean, v in zip(_decoded(messages, floats), values, strict=True)]


def _packed(integers: tf.Tensor) -> tf.Tensor:
    """int8 [n] as int32 [n / 4, rounded up], which every device gathers."""
    padded = tf.pad(integers, [[0, -integers.shape[0] % 4]])
    return tf.bitcast(tf.reshape(padded, [-1, 4]), tf.int32)


def _gathered(message: tf.Tensor) -> tf.Tensor:
    """The messages of all replicas, [replicas, length]."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return message[tf.newaxis]
    return context.all_gather(message[tf.newaxis], axis=0)


def _decoded(messages: tf.Tensor, like: list[tf.Tensor]) -> list[tf.Tensor]:
    """The means of what the messages say, in the shapes of `like`."""
    count = len(like)
    header = tf.bitcast(messages[:, : count + 1], tf.float32)
    integers = tf.reshape(tf.bitcast(messages[:, count + 1 :], tf.int8), [tf.shape(messages)[0], -1])
    means, begin = [], 0
    for index, value in enumerate(like):
        size = value.shape.num_elements()
        part = tf.cast(integers[:, begin : begin + size], tf.float32)
        factors = tf.math.multiply_no_nan(header[:, index], header[:, count])
        means.append(tf.reshape(tf.linalg.matvec(part, factors, transpose_a=True), value.shape))
        begin += size
    return means


class Compressed:
    """A compressor's messages; to be made in the strategy's scope.

    Args:
        compressor: of one stage.
        variables: whose changes travel, Keras variables.
    """

    def __init__(self, compressor: Compressor, variables: list[Any]) -> None:
        self._compressor = compressor
        self._states: dict[int, dict[str, tf.Variable]] = {}
        for place, variable in enumerate(variables):
            if compressor.takes(tuple(variable.shape)):
                initial = compressor.initial_state(place, tuple(variable.shape))
                self._states[place] = {name: local_variable(one, f"averaging_{name}") for name, one in initial.items()}

    @property
    def owed(self) -> list[tuple[tf.Variable, bool]]:
        """All states, in an order that stays."""
        shared = self._compressor.shared
        return [(one, name not in shared) for states in self._states.values() for name, one in states.items()]

    def mean(self, values: list[tf.Tensor], share: tf.Tensor) -> list[tf.Tensor]:
        """What the messages add up to; keeps what they leave out."""
        own = [weighted(tf.cast(value, tf.float32), share) for value in values]
        others = [one for place, one in enumerate(own) if place not in self._states]
        exchange = Exchange(others)
        states: list[State] = [{name: one.read_value() for name, one in kept.items()} for kept in self._states.values()]
        (stage,) = self._compressor.stages()
        sums, after = stage.reduce([own[place] for place in self._states], states, exchange)
        for kept, new in zip(self._states.values(), after, strict=True):
            for name, variable in kept.items():
                variable.assign(new[name])
        found, rest = dict(zip(self._states, sums, strict=True)), iter(exchange.companions())
        totals = [found[place] if place in found else next(rest) for place in range(len(own))]
        return [tf.cast(total, value.dtype) for total, value in zip(totals, values, strict=True)]


def wire_for(compression: str | Compressor | None, variables: list[Any]) -> Wire:
    """What `AveragingOptions.compression` means for some variables; to be called in the strategy's scope."""
    return Compressed(compression, variables) if isinstance(compression, Compressor) else WIRES[compression]


WIRES: dict[str | None, Wire] = {None: Exact(), "bfloat16": BFloat16(), "int8": Int8()}
