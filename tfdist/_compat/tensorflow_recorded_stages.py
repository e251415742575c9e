"""A computation whose gradient is a function of one's own, told to the tapes around it.

Upstream: `tf.custom_gradient` does this inside a `tf.function` by reading every variable in one `IdentityN`, which
sends them all to one device and makes them wait for each other, and registers a gradient for each call, for ever.
Here: what it calls for eager tensors, `record_operation`, which works for a graph's tensors just as well: the last one
to record a tensor decides its gradient. Seen in TensorFlow 2.21. Can go when `tf.custom_gradient` takes variables as
they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record


def is_recording() -> bool:
    """Whether any tape is."""
    return bool(record.could_possibly_record())


def is_watched(tensor: tf.Tensor) -> bool:
    """Whether a tape wants a tensor's gradient."""
    return bool(record.should_record_backprop([tensor]))


def record_stage(
    outputs: list[tf.Tensor], inputs: list[tf.Tensor], variables: list[Any], backward: Callable[..., list[Any]]
) -> None:
    """Tell the tapes how to differentiate.

    Args:
        outputs: floating tensors that nothing else has recorded, or only what they were made by.
        inputs: floating tensors that they were made from.
        variables: `tf.Variable`s that they were made from.
        backward: from the gradients of the outputs to those of inputs and variables, None where there is none.
    """
    record.record_operation("tfdist_stage", outputs, [*inputs, *(one.handle for one in variables)], backward)
