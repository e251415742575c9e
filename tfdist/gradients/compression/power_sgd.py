"""Low-rank gradients."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import ClassVar, Literal

import numpy as np
import tensorflow as tf

from tfdist.gradients.compression.cast import DTYPES, check_dtype
from tfdist.gradients.compression.compressor import Compressor, Stage, State, check_count, check_number, send_whole
from tfdist.gradients.compression.exchange import Exchange


@dataclasses.dataclass(frozen=True)
class PowerSGD(Compressor):
    """Each kernel's gradient as the product of two thin matrices, from one step of power iteration.

    With M_r [n, m] what replica r has to send, its dimensions cut in two where n + m is smallest, and Q [m, rank] of
    the step before (warm start):

        P   = orthonormal(sum_r M_r Q)       one all-reduce of rank n numbers
        Q_r = M_r^T P,  Q <- sum_r Q_r       one all-reduce of rank m numbers
        sum = P Q^T,    e_r <- M_r - P Q_r^T

    With a `dtype` of 16 bits, M_r Q and Q_r are rounded to it for the wire and added up in float32. P is orthonormal
    all the same, and what Q_r loses is in e_r; with more than two replicas the sums are rounded once more, see
    `rounded_sum.py`.

    Vogels et al. 2019, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization",
    arXiv:1905.13727.

    Args:
        rank: columns of P and Q.
        start_step: optimizer steps before the first compressed one; gradients change most at the beginning.
        min_ratio: kernels with n m < min_ratio rank (n + m) are sent as they are.
        dtype: of P and Q on the wire, "float32", "bfloat16" or "float16".
        min_size: see `Compressor`.

    Raises:
        TypeError, ValueError: an option is wrong.
    """

    shared: ClassVar[frozenset[str]] = frozenset({"factor"})

    rank: int = 4
    start_step: int = 0
    # A message that isn't half as long is not worth two products of matrices and a factorization.
    min_ratio: float = 2.0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("rank", self.rank, 1)
        check_count("start_step", self.start_step, 0)
        check_number("min_ratio", self.min_ratio)
        if not self.min_ratio >= 1:
            raise ValueError(
                "Expected: min_ratio of at least 1, or messages grow. "
                f"Received: min_ratio={self.min_ratio}. Correct it."
            )
        check_dtype(self.dtype, ("float32", *DTYPES))

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Large ones that become smaller by `min_ratio`."""
        if not self.is_large(shape):
            return False
        rows, columns = _matrix(shape)
        smaller = rows * columns >= self.min_ratio * self.rank * (rows + columns)
        return smaller and self.rank <= min(rows, columns)

    def initial_state(self, index: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """No error, and a factor drawn from the normal distribution, the same on all replicas."""
        rows, columns = _matrix(shape)
        factor = np.random.Generator(np.random.PCG64(index)).standard_normal((columns, self.rank), np.float32)
        return {"error": np.zeros((rows, columns), np.float32), "factor": factor}

    def stages(self) -> tuple[Stage, ...]:
        """Whole up to `start_step`."""
        begin = (Stage(0, send_whole, keeps_states=False),) if self.start_step else ()
        return (*begin, Stage(self.start_step, functools.partial(reduce_low_rank, dtype=tf.as_dtype(self.dtype))))


def reduce_low_rank(
    values: list[tf.Tensor], states: list[State], exchange: Exchange, *, dtype: tf.DType = tf.float32
) -> tuple[list[tf.Tensor], list[State]]:
    """The stage that compresses.

    Args:
        dtype: of what is sent.
    """

    def total(parts: list[tf.Tensor]) -> list[tf.Tensor]:
        return exchange.sum(parts) if dtype == tf.float32 else exchange.sum_cast(parts, dtype)

    matrices = [tf.reshape(v, _matrix(v.shape)) + state["error"] for v, state in zip(values, states, strict=True)]
    products = total([m @ state["factor"] for m, state in zip(matrices, states, strict=True)])
    # Householder's, which gives orthonormal columns for a product of any rank; Gram-Schmidt would stay at zero.
    bases = [tf.linalg.qr(product).q for product in products]
    own = [tf.matmul(m, basis, transpose_a=True) for m, basis in zip(matrices, bases, strict=True)]
    # As they are said, so that what rounding leaves out is owed.
    own = [tf.cast(tf.cast(one, dtype), tf.float32) for one in own]
    factors = total(own)
    sums: list[tf.Tensor] = []
    after: list[State] = []
    for value, matrix, basis, mine, factor in zip(values, matrices, bases, own, factors, strict=True):
        sums.append(tf.reshape(tf.matmul(basis, factor, transpose_b=True), value.shape))
        after.append({"error": matrix - tf.matmul(basis, mine, transpose_b=True), "factor": factor})
    return sums, after


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a kernel: of the ways to cut its dimensions in two, the one with the fewest together."""
    ways = [(math.prod(shape[:place]), math.prod(shape[place:])) for place in range(1, len(shape))]
    return min(reversed(ways), key=sum)
