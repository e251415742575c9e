"""Eight, four or one bit for each element."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdist.gradients.compression.compressor import Compressor, Stage, State
from tfdist.gradients.compression.exchange import Exchange
from tfdist.gradients.compression.packing import pack_codes, packed_length, unpack_codes

BITS = (8, 4, 1)
#: Elements that share a scale: four bytes for so many are below 2% of them even at one bit each.
_BUCKET = 2048


@dataclasses.dataclass(frozen=True)
class Quantize(Compressor):
    """Elements as whole numbers of a few bits; runs of at most 2,048 of a kernel share a scale.

    With v a run of what replica r has to send and L = 2^(bits - 1) - 1:

        8, 4 bits   C(v) = round(v / s) s,  s = max|v| / L
        1 bit       C(v) = the mean of the v >= 0 where v >= 0, of the others elsewhere
        e_r <- v - C(v)

    Alistarh et al. 2017, "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", arXiv:1610.02132,
    which rounds at random in place of keeping the error; Seide et al. 2014, "1-Bit Stochastic Gradient Descent and its
    Application to Data-Parallel Distributed Training of Speech DNNs", which has the means.

    Args:
        bits: 8, 4 or 1.
        min_size: see `Compressor`.

    Raises:
        ValueError: another number of bits.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.bits, bool) or self.bits not in BITS:
            raise ValueError(f"Expected: bits to be one of {BITS}. Received: bits={self.bits!r}. Choose one of them.")

    def initial_state(self, index: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Nothing is owed."""
        return {"error": np.zeros(shape, np.float32)}

    def stages(self) -> tuple[Stage, ...]:
        """The same always."""
        return (Stage(0, self._reduce),)

    def _reduce(
        self, values: list[tf.Tensor], states: list[State], exchange: Exchange
    ) -> tuple[list[tf.Tensor], list[State]]:
        owed = [value + state["error"] for value, state in zip(values, states, strict=True)]
        said = [self._said(one) for one in owed]
        layout = _Layout(
            [one.scales.shape.num_elements() for one in said], [one.codes.shape.num_elements() for one in said]
        )
        message = tf.concat(
            [
                tf.bitcast(tf.concat([tf.reshape(one.scales, [-1]) for one in said], 0), tf.int32),
                pack_codes(tf.concat([tf.reshape(one.codes, [-1]) for one in said], 0), self.bits),
            ],
            0,
        )
        totals = [tf.zeros(value.shape) for value in values]
        for other in exchange.gather(message):
            heard = self._read(other, layout, said)
            totals = [total + self._meaning(one, total.shape) for total, one in zip(totals, heard, strict=True)]
        after: list[State] = [
            {"error": one - self._meaning(mine, one.shape)} for one, mine in zip(owed, said, strict=True)
        ]
        return totals, after

    def _said(self, value: tf.Tensor) -> _Said:
        """What a message says of a value."""
        size = value.shape.num_elements()
        buckets = math.ceil(size / _BUCKET)
        width = math.ceil(size / buckets)
        runs = tf.reshape(tf.pad(tf.reshape(value, [-1]), [[0, buckets * width - size]]), [buckets, width])
        if self.bits == 1:
            return _signs(runs, size)
        levels = 2 ** (self.bits - 1) - 1
        scales = tf.reduce_max(tf.abs(runs), 1, keepdims=True) / levels
        codes = tf.round(tf.math.divide_no_nan(runs, scales)) + levels
        return _Said(scales, tf.cast(codes, tf.uint8))

    def _read(self, message: tf.Tensor, layout: _Layout, like: list[_Said]) -> list[_Said]:
        scales, packed = tf.split(message, [sum(layout.scales), packed_length(sum(layout.codes), self.bits)])
        codes = unpack_codes(packed, self.bits, sum(layout.codes))
        parts = zip(tf.split(tf.bitcast(scales, tf.float32), layout.scales), tf.split(codes, layout.codes), strict=True)
        return [
            _Said(tf.reshape(scale, one.scales.shape), tf.reshape(code, one.codes.shape))
            for (scale, code), one in zip(parts, like, strict=True)
        ]

    def _meaning(self, said: _Said, shape: tf.TensorShape) -> tf.Tensor:
        """C(v)."""
        if self.bits == 1:
            runs = tf.where(tf.cast(said.codes, tf.bool), said.scales[:, :1], said.scales[:, 1:])
        else:
            runs = (tf.cast(said.codes, tf.float32) - float(2 ** (self.bits - 1) - 1)) * said.scales
        return tf.reshape(tf.reshape(runs, [-1])[: shape.num_elements()], shape)


class _Said(NamedTuple):
    """One value in a message: float32 [buckets, 1 or 2], uint8 [buckets, width]."""

    scales: tf.Tensor
    codes: tf.Tensor


class _Layout(NamedTuple):
    """Numbers of elements of all values in a message."""

    scales: list[int]
    codes: list[int]


def _signs(runs: tf.Tensor, size: int) -> _Said:
    """One bit for each element, and for each run the means of both kinds; padding is of neither."""
    is_real = np.arange(runs.shape.num_elements()).reshape(runs.shape) < size
    above = tf.cast(runs >= 0, tf.float32)
    count_above = tf.reduce_sum(above * is_real, 1)
    count_below = tf.reduce_sum((1 - above) * is_real, 1)
    mean_above = tf.math.divide_no_nan(tf.reduce_sum(runs * above, 1), count_above)
    mean_below = tf.math.divide_no_nan(tf.reduce_sum(runs * (1 - above), 1), count_below)
    return _Said(tf.stack([mean_above, mean_below], 1), tf.cast(runs >= 0, tf.uint8))
