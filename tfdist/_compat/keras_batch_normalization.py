"""Synchronized BatchNormalization: variance as on one device, and replicas without rows that count for nothing.

Upstream: `_compute_moments_sync` makes three all-reduces a layer and takes E[x^2] - E[x]^2, which loses digits where
the mean is large; on one device Keras takes E[(x - E[x])^2].
Here: two all-reduces, the mean first, then the squared differences from it; their gradients know that replicas'
losses weigh by their rows.
Seen in Keras 3.15.1. Can go when upstream does the same.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import nn

from tfdist._compat import hooks

_compute_moments_sync = nn._compute_moments_sync
_moments = keras.layers.BatchNormalization._moments


def install() -> None:
    """Replace the function that `ops.moments(synchronized=True)` calls, and the layer's own for masked inputs."""
    nn._compute_moments_sync = compute_moments_sync
    keras.layers.BatchNormalization._moments = moments


def compute_moments_sync(x: Any, axes: Any, keepdims: bool) -> tuple[Any, Any]:
    """Mean and variance of `x` along `axes` over all replicas."""
    step = hooks.current_step()
    if step is None:
        return _compute_moments_sync(x, axes, keepdims)
    weight = tf.cast(step.has_rows(), x.dtype)
    total = tf.math.multiply_no_nan(tf.reduce_sum(x, axes, keepdims=True), weight)
    count = weight * tf.cast(tf.size(x) // tf.maximum(tf.size(total), 1), x.dtype)
    packed = step.all_reduce(tf.concat([tf.reshape(total, [-1]), [count]], 0))
    count = packed[-1]
    mean = tf.math.divide_no_nan(tf.reshape(packed[:-1], tf.shape(total)), count)
    squares = tf.reduce_sum(tf.math.squared_difference(x, mean), axes, keepdims=True)
    squares = step.all_reduce(tf.math.multiply_no_nan(squares, weight))
    variance = tf.math.divide_no_nan(squares, count)
    if keepdims:
        return mean, variance
    return tf.squeeze(mean, axes), tf.squeeze(variance, axes)


def moments(self: Any, inputs: Any, mask: Any) -> tuple[Any, Any]:
    """Upstream's; where it leaves masked inputs unsynchronized, moments of all replicas' valid elements."""
    step = hooks.current_step()
    if step is None or mask is None or not self.synchronized:
        return _moments(self, inputs, mask)
    weight = tf.cast(step.has_rows(), inputs.dtype)
    valid = tf.broadcast_to(tf.cast(mask[..., tf.newaxis], tf.bool), tf.shape(inputs))
    axes, epsilon = self._reduction_axes, keras.backend.epsilon()

    def masked_sum(values: Any) -> Any:
        return tf.reduce_sum(tf.where(valid, values, tf.zeros_like(values)), axes)

    count = step.all_reduce(weight * masked_sum(tf.ones_like(inputs))) + epsilon
    mean = step.all_reduce(tf.math.multiply_no_nan(masked_sum(inputs), weight)) / count
    squares = masked_sum(tf.math.squared_difference(inputs, mean))
    return mean, step.all_reduce(tf.math.multiply_no_nan(squares, weight)) / count
