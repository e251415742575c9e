"""Tells the current step which Keras variables it assigned, and turns mirrored ones into Python numbers.

Upstream: a layer that assigns a variable in replica context (BatchNormalization's moving statistics, any moving
average) changes the replica's own copy, and the copies drift apart. `int(optimizer.iterations)` fails where the
variable is on several devices.
Here: assignments are recorded, so that the step can average them over the replicas at its end; `int` and `float` take
the first copy. Seen in Keras 3.15.1. Can go when Keras gives such variables an aggregation of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras.src.backend.common import KerasVariable

from tfdist._compat import hooks

_assign = KerasVariable.assign
_numbers = {name: getattr(KerasVariable, name) for name in ("__int__", "__float__")}


def install() -> None:
    """Replace `KerasVariable.assign`, which `assign_add` and `assign_sub` call, and the conversions to numbers."""
    KerasVariable.assign = assign
    for name, convert in (("__int__", int), ("__float__", float)):
        setattr(KerasVariable, name, _number(_numbers[name], convert))


def assign(self: Any, value: Any) -> Any:
    """Upstream's assign, noted in the current step."""
    step = hooks.current_step()
    if step is not None:
        step.assigned.append(self)
    return _assign(self, value)


def _number(upstream: Callable[[Any], Any], convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(upstream)
    def number(self: Any) -> Any:
        if hooks.hooks_of(getattr(self.value, "distribute_strategy", None)) is None or self.ndim > 0:
            return upstream(self)
        return convert(tf.convert_to_tensor(self.value))

    return number
