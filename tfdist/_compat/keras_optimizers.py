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

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.optimizers.base_optimizer import BaseOptimizer

from tfdist._compat import hooks

#: Optimizers inside another one, which reduces for them.
_inner: weakref.WeakSet[Any] = weakref.WeakSet()

#: Optimizers whose `_iterations` counts optimizer steps, not micro-batches.
_counting_updates: weakref.WeakSet[Any] = weakref.WeakSet()

#: Optimizers whose own accumulation is switched off just now: its steps, and how many replicas want it so.
_switched_off: weakref.WeakKeyDictionary[Any, tuple[int | None, int]] = weakref.WeakKeyDictionary()

#: Classes that have an `apply` of their own; Keras 3.12 has no MultiOptimizer.
_MULTI = (keras.optimizers.MultiOptimizer,) if hasattr(keras.optimizers, "MultiOptimizer") else ()
_apply = {class_: class_.apply for class_ in (BaseOptimizer, keras.optimizers.LossScaleOptimizer, *_MULTI)}
_build, _iterations = BaseOptimizer.build, BaseOptimizer.iterations
_all_reduce_sum_gradients = TFOptimizer._all_reduce_sum_gradients
_overwrite = TFOptimizer._overwrite_model_variables_with_average_value


def install() -> None:
    """Replace the methods on Keras' classes."""
    for class_, apply in _apply.items():
        class_.apply = _before(apply)
    BaseOptimizer.build = build
    BaseOptimizer.iterations = property(iterations)
    TFOptimizer._all_reduce_sum_gradients = all_reduce_sum_gradients
    TFOptimizer._overwrite_model_variables_with_average_value = overwrite_with_average


def _before(apply: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(apply)
    def apply_global(self: Any, grads: Any, trainable_variables: Any = None) -> Any:
        handler = _handler(self)
        is_unknown = trainable_variables is None and not self.built  # upstream says what is wrong
        if handler is None or is_unknown or len(grads) == 0:
            return apply(self, grads, trainable_variables)
        variables = trainable_variables_of(self) if trainable_variables is None else list(trainable_variables)
        return handler.apply_gradients(self, list(grads), variables, functools.partial(_update, apply, self))

    return apply_global


def _update(apply: Callable[..., Any], optimizer: Any, gradients: list[Any], variables: list[Any]) -> None:
    with contextlib.nullcontext() if _keeps_accumulation(optimizer) else without_accumulation(optimizer):
        apply(optimizer, gradients, variables)


def _keeps_accumulation(optimizer: Any) -> bool:
    """Whether Keras' own accumulation is at work under a tfdist strategy."""
    strategy = hooks.hooks_of(strategy_of(optimizer))
    return strategy is not None and not strategy.accumulates_for_keras


def _handler(optimizer: Any) -> hooks.GradientHandler | None:
    """What takes an outermost optimizer's gradients in replica context, None for upstream's `apply`."""
    if tf.distribute.in_cross_replica_context():
        return None
    if is_inside(optimizer):
        return None
    strategy = hooks.active_strategy()
    if strategy is not None and strategy.splits_operations:
        return strategy  # which lays out what is to be added up
    return accumulation_of(optimizer) or strategy


def is_inside(optimizer: Any) -> bool:
    """Whether an optimizer belongs to another one that has been seen, which takes care of its gradients."""
    _inner.update(parts_of(optimizer))
    return optimizer in _inner


def accumulation_of(optimizer: Any) -> Any:
    """The gradient accumulation that was attached to an optimizer, or None."""
    return getattr(optimizer, "_tfdist_accumulation", None)


def attach_accumulation(optimizer: Any, accumulation: Any, checkpoint_state: Any) -> None:
    """Let `accumulation` take the optimizer's gradients, and files of Keras and TensorFlow hold its state."""
    optimizer._tfdist_checkpoint_state = checkpoint_state  # tracked by tf.train.Checkpoint
    object.__setattr__(optimizer, "_tfdist_accumulation", accumulation)
    object.__setattr__(optimizer, "_tfdist_accumulators", accumulation.state)
    _counting_updates.update((optimizer, *parts_of(optimizer)))


@contextlib.contextmanager
def without_accumulation(optimizer: Any) -> Iterator[None]:
    """Keras' own accumulation, switched off while tfdist builds or updates in its place.

    Replicas are threads that take turns in here, so the first one in switches off and the last one out switches on.
    """
    parts = [optimizer, *parts_of(optimizer)]
    for part in parts:
        steps, entered = _switched_off.get(part, (part.gradient_accumulation_steps, 0))
        _switched_off[part] = (steps, entered + 1)
        object.__setattr__(part, "gradient_accumulation_steps", None)
    try:
        yield
    finally:
        for part in parts:
            steps, entered = _switched_off.pop(part)
            if entered > 1:
                _switched_off[part] = (steps, entered - 1)
            else:
                object.__setattr__(part, "gradient_accumulation_steps", steps)


def build(self: Any, variables: Any) -> Any:
    """Upstream's, without the accumulators that nothing would use."""
    is_ours = hooks.hooks_of(strategy_of(self)) is not None and not _keeps_accumulation(self)
    if not is_ours and self not in _counting_updates:
        return _build(self, variables)
    _counting_updates.add(self)
    with without_accumulation(self):
        return _build(self, variables)


def iterations(self: Any) -> Any:
    """Optimizer steps: upstream counts micro-batches in the variable and divides, tfdist counts optimizer steps."""
    return self._iterations if self in _counting_updates else _iterations.fget(self)


def counts_updates(optimizer: Any) -> bool:
    """Whether an optimizer's `_iterations` counts optimizer steps although it has `gradient_accumulation_steps`."""
    return optimizer in _counting_updates


def build_if_needed(optimizer: Any, variables: list[Any]) -> None:
    """What `apply` does before its first step."""
    if not optimizer.built:
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(variables)


def variable_index(optimizer: Any, variable: Any) -> int:
    """A variable's place among those that the optimizer was built with.

    Raises:
        ValueError: it is none of them.
    """
    optimizer._check_variables_are_known([variable])
    return int(optimizer._get_variable_index(variable))


def trainable_variables_of(optimizer: Any) -> list[Any]:
    """The variables that a built optimizer was built with."""
    return list(optimizer._trainable_variables)


class LossScale(NamedTuple):
    """What gradients are multiplied with: None for 1, and whether the optimizer adapts it to them."""

    value: Any
    is_dynamic: bool


def loss_scale_of(optimizer: Any) -> LossScale:
    """The scale in the gradients that an outermost optimizer is given."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return LossScale(tf.convert_to_tensor(optimizer.dynamic_scale), True)
    return LossScale(optimizer.loss_scale_factor, False)


def parts_of(optimizer: Any) -> list[Any]:
    """The optimizers inside another one, however deep."""
    inner = getattr(optimizer, "inner_optimizer", None)
    parts = [] if inner is None else [inner]
    if isinstance(optimizer, _MULTI):
        parts = optimizer.optimizers
    return [*parts, *(deeper for part in parts for deeper in parts_of(part))]


def leaves_of(optimizer: Any) -> list[Any]:
    """An optimizer, or those inside it, that change variables themselves."""
    return [one for one in (optimizer, *parts_of(optimizer)) if not parts_of(one)]


def slots_of(leaf: Any) -> list[Any]:
    """Keras variables of an optimizer but its count of steps and its learning rate."""
    return [one for one in leaf.variables if one is not leaf._iterations and one is not leaf._learning_rate]


def step_count_of(leaf: Any) -> Any:
    """Keras variable that counts an optimizer's steps."""
    return leaf._iterations


@contextlib.contextmanager
def scheduled_by(counts: dict[Any, tf.Tensor]) -> Iterator[None]:
    """In here schedules of optimizers' learning rates go by other counts than those of the optimizers' steps."""
    scheduled = [
        leaf for leaf in counts if isinstance(leaf._learning_rate, keras.optimizers.schedules.LearningRateSchedule)
    ]
    for leaf in scheduled:
        object.__setattr__(leaf, "_get_current_learning_rate", functools.partial(leaf._learning_rate, counts[leaf]))
    try:
        yield
    finally:
        for leaf in scheduled:
            vars(leaf).pop("_get_current_learning_rate")


@contextlib.contextmanager
def scaled_learning_rate(optimizer: Any, factor: tf.Tensor) -> Iterator[None]:
    """An optimizer, and those inside it, make steps with this part of their learning rate in here."""
    leaves = leaves_of(optimizer)
    for leaf in leaves:
        rate = leaf._get_current_learning_rate

        def scaled(rate: Callable[[], Any] = rate) -> tf.Tensor:
            whole = tf.convert_to_tensor(rate())
            return whole * tf.cast(factor, whole.dtype)

        object.__setattr__(leaf, "_get_current_learning_rate", scaled)
    try:
        yield
    finally:
        for leaf in leaves:
            vars(leaf).pop("_get_current_learning_rate")


def all_reduce_sum_gradients(self: Any, grads_and_vars: Any) -> Any:
    """Pass on what `apply` has reduced."""
    if hooks.active_strategy() is None:
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
    """Keras' own setting on the optimizer, or on those inside it.

    Raises:
        ValueError: optimizers that make one step together have different settings.
    """
    settings = {one.name: one.gradient_accumulation_steps for one in leaves_of(optimizer)}
    if len(set(settings.values())) > 1:
        raise ValueError(
            "Optimizers that update together accumulate together. Expected: the same gradient_accumulation_steps on "
            f"all. Received: {settings}. Give them the same number, or set it on the strategy instead."
        )
    return next(iter(settings.values()))
