"""Losses and metrics of logits whose classes are split over devices, as those of a head with a large vocabulary are.

Upstream: `argmax` has DTensor gather all logits on every device, and `in_top_k` has no rule. Of the cross-entropy
DTensor makes parts, through ten tensors of the size of the logits, and takes labels that are no class for a loss.
Here: under a strategy that splits operations all three are made of elementwise operations and of reductions over the
classes, which devices compute of their parts and then add up (Shoeybi et al., "Megatron-LM", 2019). No device has more
than its part of the logits, and one tensor of their size is alive beside them, in the gradient two.
Seen in Keras 3.15.1, TensorFlow 2.21. Can go when DTensor does so.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf
from keras.src.backend.tensorflow import math as math_operations
from keras.src.backend.tensorflow import nn as nn_operations
from keras.src.backend.tensorflow import numpy as operations

from tfdist._compat.keras_operations import is_split as splits_operations

_argmax, _in_top_k = operations.argmax, math_operations.in_top_k
_cross_entropy = nn_operations.sparse_categorical_crossentropy


def install() -> None:
    """Replace the functions in the backend's modules."""
    operations.argmax = argmax
    math_operations.in_top_k = in_top_k
    nn_operations.sparse_categorical_crossentropy = sparse_categorical_crossentropy


def is_split() -> bool:
    """Whether a graph is made for a mesh; eagerly, DTensor would not take the numbers of the classes."""
    return tf.inside_function() and splits_operations()


@functools.wraps(_argmax)
def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Upstream's, of floating numbers; the first of equal ones, and of zeros those without a minus."""
    x = tf.convert_to_tensor(x) if is_split() else x
    if not is_split() or axis is None or not x.dtype.is_floating or x.shape[axis] is None:
        return _argmax(x, axis, keepdims)
    size = x.shape[axis]
    places = tf.reshape(tf.range(size), [-1] + [1] * (len(x.shape) - 1 - axis % len(x.shape)))
    is_largest = tf.equal(x, tf.reduce_max(x, axis, keepdims=True))
    zeros_last = tf.where(_is_negative_zero(x), places + size, places)
    found = tf.reduce_min(tf.where(is_largest, zeros_last, 2 * size), axis, keepdims=keepdims)
    return found % size  # where nothing equals the largest, since it is no number, the first


def _is_negative_zero(x: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.math.reciprocal(x), -float("inf"))


@functools.wraps(_in_top_k)
def in_top_k(targets: Any, predictions: Any, k: Any) -> Any:
    """Upstream's; classes as large as the target's are no hindrance, and what is not finite is not among the top."""
    predictions = tf.convert_to_tensor(predictions) if is_split() else predictions
    if not is_split() or predictions.shape[-1] is None:
        return _in_top_k(targets, predictions, k)
    own = _of_labels(predictions, tf.convert_to_tensor(targets))
    larger = tf.reduce_sum(tf.cast(predictions > own[..., None], tf.int32), -1)
    finite = tf.reduce_all(tf.math.is_finite(predictions), -1)
    return tf.logical_and(tf.logical_and(larger < k, finite), tf.math.is_finite(own))


@functools.wraps(_cross_entropy)
def sparse_categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    """Upstream's."""
    if not is_split():
        return _cross_entropy(target, output, from_logits, axis)
    logits, are_logits = nn_operations._get_logits(output, from_logits, "Softmax", "sparse_categorical_crossentropy")
    labels = tf.cast(tf.convert_to_tensor(target), tf.int64)
    logits = tf.convert_to_tensor(logits)
    if len(labels.shape) == len(logits.shape) and labels.shape[-1] == 1:
        labels = tf.squeeze(labels, -1)
    is_last, is_known = axis in (-1, len(logits.shape) - 1), logits.shape.rank and logits.shape[-1] is not None
    if not is_last or not is_known or not labels.shape.is_compatible_with(logits.shape[:-1]):
        return _cross_entropy(target, output, from_logits, axis)
    if not are_logits:
        smallest = nn_operations.backend.epsilon()
        logits = tf.math.log(tf.clip_by_value(logits, smallest, 1 - smallest))
    return tf.cast(cross_entropy(labels, tf.cast(logits, _wide(logits.dtype))), logits.dtype)


def _wide(dtype: tf.DType) -> tf.DType:
    return tf.float32 if dtype.size < tf.float32.size else dtype


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """log(sum(exp(logits))) - logits[label], of the last dimension; NaN where the label is no class.

    Args:
        labels: integers, [...].
        logits: float32 or float64, [..., classes].
    """

    @tf.custom_gradient
    def of_logits(logits: tf.Tensor) -> Any:
        largest = tf.reduce_max(logits, -1, keepdims=True)
        total = tf.reduce_sum(tf.exp(logits - largest), -1, keepdims=True)
        own = _of_labels(logits, labels)[..., None]
        loss = tf.math.log(total) - (own - largest)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            probabilities = tf.exp(logits - largest) / total
            weights = tf.where(tf.math.is_nan(own), own, upstream[..., None])
            return (probabilities - tf.cast(_is_label(logits, labels), logits.dtype)) * weights

        return loss[..., 0], gradient

    return of_logits(logits)


def _of_labels(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The logit of each label; NaN where there is none."""
    own = tf.reduce_sum(tf.where(_is_label(logits, labels), logits, tf.zeros([], logits.dtype)), -1)
    known = tf.logical_and(labels >= 0, labels < logits.shape[-1])
    return tf.where(known, own, tf.constant(float("nan"), logits.dtype))


def _is_label(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    # Compared with all classes here; DTensor gives each device the classes that it has logits of.
    return tf.equal(tf.range(logits.shape[-1], dtype=labels.dtype), labels[..., None])
