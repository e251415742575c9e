"""A Keras variable that moves to another device.

Upstream: a Keras variable keeps the `tf.Variable` that it was made with.
Here: it is given another one, with the same value, which Keras' own `_initialize` makes. What has held the old one,
such as a traced function or an optimizer that was built before, goes on with the old one; so this comes before them.
Seen in Keras 3.15.1. Can go when Keras' TensorFlow variables can be put elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def stored(variable: Any) -> tf.Variable:
    """What holds a Keras variable's value, also where Keras would cast it to a layer's compute dtype."""
    return variable._value


def device_of(variable: Any) -> str:
    """Whole name of the device that holds a Keras variable's value; of a replica's copy in the replica."""
    return str(stored(variable).device)


def devices_of(variable: Any) -> list[str]:
    """Whole names of the devices that hold a Keras variable's copies, one a replica."""
    return [str(copy.device) for copy in getattr(stored(variable), "values", [stored(variable)])]


def move(variable: Any, strategy: Any, devices: Sequence[str]) -> None:
    """Make a Keras variable's value anew on other devices, unless it is there; eagerly.

    Args:
        variable: a Keras variable.
        strategy: in whose scope it was made; its `extended` can make variables on devices.
        devices: whole names, one a replica.
    """
    if devices_of(variable) == list(devices):
        return
    value = stored(variable).read_value()
    with tf.init_scope(), strategy.scope(), strategy.extended.making_on(devices):
        variable._value = None
        variable._initialize(value)
