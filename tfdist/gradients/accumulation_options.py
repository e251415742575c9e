"""What a user can choose about gradient accumulation."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Literal

import tensorflow as tf

from tfdist.gradients.skip_rules import SkipRule

#: A number of micro-batches, or a function from the number of optimizer steps done to it.
Steps = int | Callable[[Any], Any]

LEFTOVER = ("flush", "carry", "drop")


@dataclasses.dataclass(frozen=True)
class AccumulationOptions:
    """How gradients of several micro-batches become one optimizer step.

    Args:
        steps: micro-batches to an optimizer step, K: an int of at least 1, or a function from `optimizer.iterations`
            to it, such as `keras.optimizers.schedules.PiecewiseConstantDecay([1000], [1, 4])`, so that the batch size
            grows during training (Smith et al. 2018, arXiv:1711.00489).
        leftover: what becomes of fewer than K micro-batches at the end of an epoch. "flush": an optimizer step with
            what is there, weighted by its rows, so that no row is lost and validation sees it; "carry": they wait for
            the next epoch's or `fit`'s micro-batches; "drop": they are forgotten.
        dtype: of the accumulators, one for each variable that has a gradient, made at the first micro-batch where K
            may be above 1. None is the variable's dtype; float16 variables have float32 ones, since sums over rows
            leave float16's range. "float32" keeps the digits of bfloat16 models, at twice the memory and traffic.
            Gradients of embeddings are kept as the rows that came, not as a table.
        skip_rules: functions that can skip an update, see `skip_rules.py`.
        splits: cut each batch into so many micro-batches of even size, in `fit` and `train_on_batch` under a strategy:
            as much memory as batches of that size take, without a change of the data. `steps`, and what callbacks
            count, are still whole batches.

    Raises:
        ValueError, TypeError: an option is wrong.
    """

    steps: Steps = 1
    leftover: Literal["flush", "carry", "drop"] = "flush"
    dtype: str | None = None
    skip_rules: Sequence[SkipRule] = ()
    splits: int = 1

    def __post_init__(self) -> None:
        check_steps(self.steps)
        if self.leftover not in LEFTOVER:
            raise ValueError(f"Expected: leftover to be one of {LEFTOVER}. Received: leftover={self.leftover!r}.")
        if self.dtype is not None and not tf.as_dtype(self.dtype).is_floating:
            raise ValueError(f"Expected: a floating dtype such as 'float32'. Received: dtype={self.dtype!r}.")
        if not all(callable(rule) and hasattr(rule, "__name__") for rule in self.skip_rules):
            raise TypeError(
                "Expected: skip_rules to be functions of the gradients, with a __name__. "
                f"Received: skip_rules={self.skip_rules!r}."
            )
        names = [rule.__name__ for rule in self.skip_rules]
        if len(set(names)) < len(names):
            raise ValueError(f"Expected: skip rules with names of their own. Received: {names}. Rename or merge them.")
        object.__setattr__(self, "skip_rules", tuple(self.skip_rules))
        if isinstance(self.splits, bool) or not isinstance(self.splits, numbers.Integral):
            raise TypeError(f"Expected: splits as an int. Received: splits={self.splits!r}.")
        if self.splits < 1:
            raise ValueError(f"Expected: splits of at least 1, which cuts nothing. Received: splits={self.splits}.")

    @classmethod
    def of(cls, value: Steps | AccumulationOptions) -> AccumulationOptions:
        """Options from what `gradient_accumulation_steps` of a strategy may be."""
        return value if isinstance(value, cls) else cls(value)  # type: ignore[arg-type]

    @property
    def is_trivial(self) -> bool:
        """Whether every batch is an optimizer step and none is skipped."""
        return self.steps == 1 and self.splits == 1 and not self.skip_rules

    @property
    def fixed_steps(self) -> int:
        """K, where it doesn't change during training.

        Raises:
            ValueError: it's a function of optimizer steps.
        """
        if callable(self.steps):
            raise ValueError(f"Expected: a number of micro-batches. Received: steps={self.steps!r}. Give a number.")
        return self.steps

    @property
    def traced(self) -> tuple[Any, ...]:
        """What a compiled train function depends on; a number of steps is read when it runs."""
        return (self.steps if callable(self.steps) else None, self.is_trivial, self.dtype, self.skip_rules, self.splits)


def check_steps(steps: Any) -> None:
    """Refuse what is no number of micro-batches.

    Raises:
        TypeError, ValueError: what was expected, what was received.
    """
    if callable(steps):
        return
    if isinstance(steps, bool) or not isinstance(steps, numbers.Integral):
        raise TypeError(
            "Expected: gradient_accumulation_steps as an int, or a function from optimizer steps to one. "
            f"Received: gradient_accumulation_steps={steps!r}."
        )
    if steps < 1:
        raise ValueError(
            "Expected: gradient_accumulation_steps of at least 1. "
            f"Received: gradient_accumulation_steps={steps}. 1 is no accumulation."
        )
