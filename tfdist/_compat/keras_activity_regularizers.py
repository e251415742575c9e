"""Activity regularizers in Keras 3.12, which add up over the batch instead of averaging.

Upstream: Keras 3.12 adds the regularizer's sum over the replica's rows to the loss; from 3.15 on it is divided by their
number, and so a mean like other losses.
Here: inside a step a sum weighs what makes it one over the global batch's rows. Seen in Keras 3.12.4, the last for
Python 3.10; later versions need nothing. Can go with Python 3.10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfdist._compat import hooks


def install() -> None:
    """Make `Layer.activity_regularizer` a property, where Keras sums."""
    if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13):
        keras.layers.Layer.activity_regularizer = property(_get_regularizer, _set_regularizer)


def _get_regularizer(layer: Any) -> Callable[[Any], Any] | None:
    if "activity_regularizer" not in layer.__dict__:
        raise AttributeError("activity_regularizer")
    regularizer, step = layer.__dict__["activity_regularizer"], hooks.current_step()
    if regularizer is None or step is None:
        return regularizer

    def summed_over_replicas(output: Any) -> Any:
        loss = regularizer(output)
        return loss * tf.cast(step.sum_factor(), loss.dtype)

    return summed_over_replicas


def _set_regularizer(layer: Any, regularizer: Any) -> None:
    layer.__dict__["activity_regularizer"] = regularizer
