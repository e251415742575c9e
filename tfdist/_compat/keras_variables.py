"""Tells the current step which Keras variables it assigned.

Upstream: a layer that assigns a variable in replica context (BatchNormalization's moving statistics, any moving
average) changes the replica's own copy, and the copies drift apart.
Here: assignments are recorded, so that the step can average them over the replicas at its end.
Seen in Keras 3.15.1. Can go when Keras gives such variables an aggregation of their own.
"""

from __future__ import annotations

from typing import Any

from keras.src.backend.common import KerasVariable

from tfdist._compat import hooks

_assign = KerasVariable.assign


def install() -> None:
    """Replace `KerasVariable.assign`, which `assign_add` and `assign_sub` call."""
    KerasVariable.assign = assign


def assign(self: Any, value: Any) -> Any:
    """Upstream's assign, noted in the current step."""
    step = hooks.current_step()
    if step is not None:
        step.assigned.append(self)
    return _assign(self, value)
