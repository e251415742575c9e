"""Metrics inside Keras' steps: scalars count once a global batch, and results are known for what they are.

Upstream: a train step that calls `self.loss_tracker.update_state(loss)` adds N scalars a step, equally weighted
however many rows each replica had.
Here: inside Keras' steps each replica's scalar weighs as much as its share of the rows; the shares add up to 1.
A step's logs hold results of a replica's own metrics; `record_results` lets the step tell them from other numbers, so
that it can put the results of the global data in their place.
Seen in Keras 3.15.1. Can go when Keras' metrics know of the global batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfdist._compat import hooks

_update_state = keras.metrics.Mean.update_state


def install() -> None:
    """Replace `keras.metrics.Mean.update_state`."""
    keras.metrics.Mean.update_state = update_state


def update_state(self: Any, values: Any, sample_weight: Any = None) -> Any:
    """Upstream's update; a bare scalar is weighted by the replica's share of the rows."""
    step = hooks.current_step()
    if step is not None and step.in_keras and sample_weight is None:
        values = keras.ops.convert_to_tensor(values, dtype=self.dtype)
        if len(values.shape) == 0:
            sample_weight = tf.cast(step.row_share(), values.dtype)
            # A mean over no rows is NaN, and weighs nothing.
            values = tf.where(sample_weight > 0, values, tf.zeros_like(values))
    return _update_state(self, values, sample_weight)


def record_results(metrics: list[Any]) -> None:
    """Let `result()` of these metrics' classes note in the current step what it returned."""
    classes: set[Any] = {class_ for metric in metrics for class_ in type(metric).__mro__}
    for class_ in classes:
        result = vars(class_).get("result")
        if result is not None and issubclass(class_, keras.metrics.Metric) and not hasattr(result, "_tfdist_upstream"):
            class_.result = _recording(result)


def _recording(result: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(result)
    def recorded(self: Any) -> Any:
        value, step = result(self), hooks.current_step()
        if step is not None and step.in_keras:
            step.results.append((self, value))
        return value

    recorded._tfdist_upstream = result  # type: ignore[attr-defined]
    return recorded


def inner_metrics(metric: Any) -> list[Any]:
    """The metrics that another one is made of, such as those that were compiled."""
    return list(getattr(metric, "metrics", ()) or getattr(metric, "_metrics", ()))
