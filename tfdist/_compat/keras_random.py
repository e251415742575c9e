"""Random numbers on a mesh of devices are those that one device would draw.

Upstream: DTensor draws for each part of a split tensor with a seed of its own, so Dropout's masks and noise depend on
how the tensor happens to be split. An initializer draws a variable as a whole, however large.
Here: under a strategy that splits operations each device draws all numbers of a tensor, and takes its part of them. Of
an initializer's tensor some rows can be drawn alone: Philox counts 4 numbers of float32 at a time on a CPU, and leaves
256 times as many for truncated normal ones, so the counter at which a row begins is known.
Seen in Keras 3.15.1, TensorFlow 2.21. Can go when DTensor draws by the counter of the whole.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from keras.src.backend.tensorflow import random

from tfdist._compat import hooks

#: Those that draw a tensor of a given shape.
_DRAWING = ("normal", "uniform", "randint", "truncated_normal", "gamma", "binomial", "beta", "categorical", "shuffle")
_upstream = {name: getattr(random, name) for name in (*_DRAWING, "dropout")}


#: Scale and shift of what is drawn, by the names of the function's parameters, and how far Philox counts by group.
_BY_ROW = {
    "uniform": ("minval", "maxval", 1),
    "normal": ("mean", "stddev", 1),
    "truncated_normal": ("mean", "stddev", 256),
}
_DRAW = {
    "uniform": tf.raw_ops.StatelessRandomUniformV2,
    "normal": tf.raw_ops.StatelessRandomNormalV2,
    "truncated_normal": tf.raw_ops.StatelessTruncatedNormalV2,
}
_GROUP = 4
_PHILOX = 1

_local = threading.local()


@dataclass
class Rows:
    """Rows of a tensor that are drawn in place of the whole.

    Args:
        shape: of the whole.
        first: the first of them, a multiple of 4.
        count: how many.
        seed: of the whole; drawn with the first rows, and kept for others of the same tensor.
    """

    shape: tuple[int, ...]
    first: int = 0
    count: int = 0
    seed: Any = None


@contextlib.contextmanager
def drawing(rows: Rows) -> Iterator[None]:
    """In here tensors of the whole's shape are drawn as these rows alone, float32 and on a CPU."""
    _local.rows = rows
    try:
        yield
    finally:
        _local.rows = None


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
        rows = getattr(_local, "rows", None)
        if rows is not None:
            return _drawn_rows(upstream, rows, inspect.signature(upstream).bind(*args, **kwargs))
        value, strategy = upstream(*args, **kwargs), _splitting_strategy()
        return value if strategy is None else strategy.whole(value)

    return draw


def _drawn_rows(upstream: Callable[..., Any], rows: Rows, call: inspect.BoundArguments) -> tf.Tensor:
    call.apply_defaults()
    given, name = call.arguments, upstream.__name__
    if name not in _BY_ROW or tuple(given["shape"]) != rows.shape or given["dtype"] != "float32":
        raise NotImplementedError(f"{name} of {given} is not drawn by rows")
    if rows.seed is None:
        rows.seed = random._cast_seed(random.draw_seed(given["seed"]))
    low, high, per_group = _BY_ROW[name]
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=rows.seed)
    begin = rows.first * math.prod(rows.shape[1:]) // _GROUP * per_group
    number = (int(counter[0]) | int(counter[1]) << 64) + begin
    counter = tf.constant([number & (1 << 64) - 1, number >> 64 & (1 << 64) - 1], tf.uint64)
    drawn = _DRAW[name](shape=[rows.count, *rows.shape[1:]], key=key, counter=counter, alg=_PHILOX, dtype=tf.float32)
    first, second = (tf.convert_to_tensor(given[one], tf.float32) for one in (low, high))
    return drawn * (second - first) + first if name == "uniform" else drawn * second + first


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
