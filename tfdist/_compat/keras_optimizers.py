"""Gradients are reduced before anything else happens to them.

Upstream: clipping, the loss-scale's finite check and accumulation see a replica's own gradients; the all-reduce
comes last, in `_all_reduce_sum_gradients`. `LossScaleOptimizer` assumes that its gradients were reduced, which they
were not, so an inf on one replica takes replicas apart. `ema_overwrite_frequency` calls `extended.update` in replica
context, which TensorFlow forbids.
Here: the outermost `apply` reduces, `_all_reduce_sum_gradients` passes on, and the overwrite assigns each replica's
own copy, which is the same everywhere because the gradients were.
Seen in Keras 3.15.1. Can go when Keras reduces first.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.optimizers.base_optimizer import BaseOptimizer

from tfdist._compat import hooks

#: Optimizers inside another one, which reduces for them.
_inner: weakref.WeakSet[Any] = weakref.WeakSet()

#: Classes that have an `apply` of their own; Keras 3.12 has no MultiOptimizer.
_MULTI = (keras.optimizers.MultiOptimizer,) if hasattr(keras.optimizers, "MultiOptimizer") else ()
_apply = {class_: class_.apply for class_ in (BaseOptimizer, keras.optimizers.LossScaleOptimizer, *_MULTI)}
_all_reduce_sum_gradients = TFOptimizer._all_reduce_sum_gradients
_overwrite = TFOptimizer._overwrite_model_variables_with_average_value


def install() -> None:
    """Replace the methods on Keras' classes."""
    for class_, apply in _apply.items():
        class_.apply = _reducing(apply)
    TFOptimizer._all_reduce_sum_gradients = all_reduce_sum_gradients
    TFOptimizer._overwrite_model_variables_with_average_value = overwrite_with_average


def _reducing(apply: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(apply)
    def reduce_and_apply(self: Any, grads: Any, trainable_variables: Any = None) -> Any:
        strategy = _strategy_to_reduce(self)
        if strategy is None:
            return apply(self, grads, trainable_variables)
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
        return apply(self, strategy.reduce_gradients(list(grads)), trainable_variables)

    return reduce_and_apply


def _strategy_to_reduce(optimizer: Any) -> Any | None:
    """The tfdist strategy whose replicas call `apply` on an outermost optimizer, else None."""
    strategy = hooks.active_strategy()
    if strategy is None or tf.distribute.in_cross_replica_context():
        return None
    _inner.update(parts_of(optimizer))
    return None if optimizer in _inner or gradient_accumulation_steps(optimizer) else strategy


def parts_of(optimizer: Any) -> list[Any]:
    """The optimizers inside another one, however deep."""
    inner = getattr(optimizer, "inner_optimizer", None)
    parts = [] if inner is None else [inner]
    if isinstance(optimizer, _MULTI):
        parts = optimizer.optimizers
    return [*parts, *(deeper for part in parts for deeper in parts_of(part))]


def all_reduce_sum_gradients(self: Any, grads_and_vars: Any) -> Any:
    """Pass on what `apply` has reduced."""
    if hooks.active_strategy() is None or gradient_accumulation_steps(self):
        return _all_reduce_sum_gradients(self, grads_and_vars)
    return grads_and_vars


def overwrite_with_average(self: Any, trainable_variables: Any) -> None:
    """Assign the averages; in replica context each replica assigns its own copy."""
    if hooks.active_strategy() is None or tf.distribute.in_cross_replica_context():
        return _overwrite(self, trainable_variables)
    for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
        if average is not None:
            variable.assign(average)
    return None


def strategy_of(optimizer: Any) -> Any:
    """The strategy in whose scope an optimizer was made."""
    return optimizer._distribution_strategy


def gradient_accumulation_steps(optimizer: Any) -> int | None:
    """The optimizer's own setting, or that of the first inside it that has one.

    Keras' own accumulation adds up a replica's gradients and reduces them when it updates.
    """
    steps = (one.gradient_accumulation_steps for one in (optimizer, *parts_of(optimizer)))
    return next((count for count in steps if count), None)
