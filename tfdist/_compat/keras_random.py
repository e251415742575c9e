"""Random numbers on a mesh of devices are those that one device would draw.

Upstream: DTensor draws for each part of a split tensor with a seed of its own, so Dropout's masks and noise depend on
how the tensor happens to be split.
Here: under a strategy that splits operations each device draws all numbers of a tensor, and takes its part of them.
Seen in Keras 3.15.1, TensorFlow 2.21. Can go when DTensor draws by the counter of the whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras.src.backend.tensorflow import random

from tfdist._compat import hooks

#: Those that draw a tensor of a given shape.
_DRAWING = ("normal", "uniform", "randint", "truncated_normal", "gamma", "binomial", "beta", "categorical", "shuffle")
_upstream = {name: getattr(random, name) for name in (*_DRAWING, "dropout")}


def install() -> None:
    """Replace the functions in the backend's module."""
    for name in _DRAWING:
        setattr(random, name, _drawn_whole(_upstream[name]))
    random.dropout = dropout


def _splitting_strategy() -> Any:
    strategy = hooks.active_strategy()
    return strategy if strategy is not None and strategy.splits_operations else None


def _drawn_whole(upstream: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(upstream)
    def draw(*args: Any, **kwargs: Any) -> Any:
        value, strategy = upstream(*args, **kwargs), _splitting_strategy()
        return value if strategy is None else strategy.whole(value)

    return draw


@functools.wraps(_upstream["dropout"])
def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    """Upstream's, which is TensorFlow's `stateless_dropout`, with a mask that is drawn whole."""
    strategy = _splitting_strategy()
    if strategy is None or not 0.0 < rate < 1.0:
        return _upstream["dropout"](inputs, rate, noise_shape, seed)
    inputs = tf.convert_to_tensor(inputs)
    seed = random._cast_seed(random.draw_seed(seed))
    shape = random._get_concrete_noise_shape(inputs, noise_shape)
    keep = strategy.whole(tf.random.stateless_uniform(shape, seed, dtype=inputs.dtype)) >= rate
    scale = tf.convert_to_tensor(1 / (1 - rate), dtype=inputs.dtype)
    return tf.where(keep, inputs * scale, tf.zeros([], inputs.dtype))
