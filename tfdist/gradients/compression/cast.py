"""Sixteen bits on the wire."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import tensorflow as tf

from tfdist.gradients.compression.compressor import Compressor, Stage, State
from tfdist.gradients.compression.exchange import Exchange

DTYPES = ("bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Cast(Compressor):
    """Gradients rounded to 16 bits for the wire, and added up in float32.

        sum = sum_r float32(round16(v_r))

    Each term is off by at most 2^-9 of itself in bfloat16, 2^-12 in float16; more than two replicas round the sum once
    more, see `rounded_sum.py`. No errors are kept.

    Args:
        dtype: "bfloat16", which has float32's range, or "float16", which is finer and ends at 65,504 and 6e-8: for
            models with loss scaling, whose scale is in what is sent.
        min_size: see `Compressor`.

    Raises:
        ValueError: another dtype.
    """

    dtype: Literal["bfloat16", "float16"] = "bfloat16"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dtype(self.dtype, DTYPES)

    def stages(self) -> tuple[Stage, ...]:
        """The same always."""
        return (Stage(0, self._reduce, keeps_states=False),)

    def _reduce(
        self, values: list[tf.Tensor], states: list[State], exchange: Exchange
    ) -> tuple[list[tf.Tensor], list[State]]:
        return exchange.sum_cast(values, tf.as_dtype(self.dtype)), states


def check_dtype(dtype: Any, known: tuple[str, ...]) -> None:
    """Refuse what is no name of a dtype for the wire."""
    if dtype not in known:
        raise ValueError(f"Expected: dtype to be one of {known}. Received: dtype={dtype!r}. Choose one.")
