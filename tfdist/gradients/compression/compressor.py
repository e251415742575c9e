"""What is done to gradients so that fewer bytes cross the wire; one file a method.

With v_r what replica r has to send, and C what its message says:

    v_r  = share_r g_r / scale + e_r     its weighted gradient, without the loss scale, and what it owes
    sum  = sum_r C(v_r)                  what every replica goes on from, the same bits on all
    e_r <- v_r - C(v_r)                  error feedback: what was not said is said later, so nothing is lost

    Karimireddy et al. 2019, "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", arXiv:1901.09847

Glossary:
    value: one variable's dense gradient in float32, in the variable's shape.
    state: what a replica keeps of a variable from step to step, tensors by name; `shared` ones are equal on all.
    companion: a gradient that is sent as it is: biases, norms, small kernels, rows of embeddings.
    stage: a way to reduce that is used from a certain optimizer step on.

The way of one optimizer step, in each replica; micro-batches were added up before:

    weigh by rows                     reduction.py; what follows is in units of the global batch's mean gradient
      -> divide by the loss scale     so that a scale that changes changes no error
      -> `reduce` of the stage        messages through an `Exchange`; companions go along with the first sum
      -> multiply by the loss scale   for the optimizer, which clips and checks what all replicas agree on
      -> update, then commit          of the states

    a replica has an inf or NaN        all replicas get NaN, and states stay as they were
    a skip rule leaves out the update  states stay as they were
    another number of replicas         errors are added up and divided evenly, see state.py
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tfdist.gradients.compression.exchange import Exchange

State = Mapping[str, tf.Tensor]
#: Of values, their states and an exchange: the sums over all replicas, and the next states.
Reduce = Callable[[list[tf.Tensor], list[State], Exchange], tuple[list[tf.Tensor], list[State]]]


class Stage(NamedTuple):
    """How values are reduced from a step on.

    Attributes:
        first_step: as `optimizer.iterations` counts them.
        reduce: called in replica context.
        keeps_states: whether it needs states; else it is given values with their loss scale, infs and NaNs, and its
            states stay as they are.
    """

    first_step: int
    reduce: Reduce
    keeps_states: bool = True


@dataclasses.dataclass(frozen=True)
class Compressor:
    """One way to compress; holds options, no state.

    Args:
        min_size: variables of fewer elements are sent as they are, and so are all with fewer than two dimensions.

    Raises:
        TypeError, ValueError: an option is wrong.
    """

    #: Names of states that are the same on all replicas.
    shared: ClassVar[frozenset[str]] = frozenset()
    # 4 kB: what gRPC was seen to add to a step's messages is 3 kB.
    min_size: int = dataclasses.field(default=1024, kw_only=True)

    def __post_init__(self) -> None:
        check_count("min_size", self.min_size, 1)

    def is_large(self, shape: tuple[int, ...]) -> bool:
        """Whether a variable of this shape is worth it: no bias, no norm's scale, nothing small."""
        return len(shape) >= 2 and math.prod(shape) >= self.min_size

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether `reduce` is given the values of a variable of this shape."""
        return self.is_large(shape)

    def initial_state(self, index: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """A variable's states before the first step; float32.

        Args:
            index: the variable's number in the optimizer.
            shape: of the variable.
        """
        return {}

    def stages(self) -> tuple[Stage, ...]:
        """In order, the first from step 0."""
        raise NotImplementedError

    def check(self, optimizer: Any) -> None:
        """Refuse an optimizer that doesn't go with it.

        Raises:
            ValueError: says why.
        """


def send_whole(values: list[tf.Tensor], states: list[State], exchange: Exchange) -> tuple[list[tf.Tensor], list[State]]:
    """A stage that sends values as they are and leaves states alone."""
    return exchange.sum(values), states


def check_count(name: str, value: Any, least: int) -> None:
    """Refuse what is no int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"Expected: {name} as an int. Received: {name}={value!r}. Correct it.")
    if value < least:
        raise ValueError(f"Expected: {name} of at least {least}. Received: {name}={value}. Correct it.")


def check_number(name: str, value: Any) -> None:
    """Refuse what is no number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"Expected: {name} as a number. Received: {name}={value!r}. Correct it.")
