"""Models that are called on arrays and tensors of the host, outside of `fit`, under a strategy with a mesh.

Upstream: an operation of a tensor of the host and a variable on a mesh fails: "got a regular tensor".
Here: inputs of a model that was made under such a strategy are brought to the mesh. Seen in Keras 3.15.1, TensorFlow
2.21. Can go when DTensor copies regular tensors to the mesh.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from tfdist._compat import hooks

_call = keras.layers.Layer.__call__


def install() -> None:
    """Give `keras.Model` a `__call__` of its own."""
    keras.Model.__call__ = call


@functools.wraps(_call)
def call(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Upstream's."""
    strategy = hooks.model_strategy(self)
    if strategy is None or not strategy.splits_operations or tf.inside_function():
        return _call(self, *args, **kwargs)
    return strategy.call_on_mesh(functools.partial(_call, self), args, kwargs)
