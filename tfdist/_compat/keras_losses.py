"""Losses are averaged over the global batch, not over each replica's part of it.

Upstream: `reduce_values` divides by the replica's own number of elements and then by the number of replicas, which
is wrong when replicas have unequal rows, unequal masks or unequal sample weights; "sum" isn't scaled at all, and a
scalar from a custom loss is not divided, so its gradient is N times too large.
Here: inside Keras' train step the value is what makes the row-weighted mean over replicas equal to the loss of the
global batch; in a custom loop (`strategy.run`) the values add up to it, as tf.distribute's convention has it.
Seen in Keras 3.15.1. Can go when Keras averages over the global batch itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from keras.src.losses import loss as loss_module

from tfdist._compat import hooks

MEAN_REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")

_reduce_values = loss_module.reduce_values
_reduce_weighted_values = loss_module.reduce_weighted_values
_scale = loss_module.scale_loss_for_distribution
_unscale = loss_module.unscale_loss_for_distribution


def install() -> None:
    """Replace the module's functions; `Loss.__call__` and the trainer look them up there at each call."""
    loss_module.reduce_values = reduce_values
    loss_module.reduce_weighted_values = reduce_weighted_values
    loss_module.scale_loss_for_distribution = scale_loss_for_distribution
    loss_module.unscale_loss_for_distribution = unscale_loss_for_distribution


def reduce_weighted_values(
    values: Any,
    sample_weight: Any = None,
    mask: Any = None,
    reduction: str | None = "sum_over_batch_size",
    dtype: Any = None,
) -> Any:
    """Upstream's function, except that a masked mean counts the valid elements of all replicas."""
    step = hooks.current_step()
    if step is None or mask is None or reduction not in ("mean", "sum_over_batch_size"):
        return _reduce_weighted_values(values, sample_weight, mask, reduction, dtype)
    with _local_loss(step):
        loss = _reduce_weighted_values(values, sample_weight, mask, reduction, dtype)
    valid = tf.reduce_sum(tf.cast(mask, tf.float32))
    return step.mean(loss, valid)


def reduce_values(values: Any, sample_weight: Any = None, reduction: str | None = "sum_over_batch_size") -> Any:
    """Upstream's local reduction, times what makes it a part of the global one."""
    step = hooks.current_step()
    if step is None or step.local_loss:
        return _reduce_values(values, sample_weight, reduction)
    with _local_loss(step):
        loss = _reduce_values(values, sample_weight, reduction)
    if reduction in (None, "none"):
        return step.unreduced(loss)
    if reduction not in MEAN_REDUCTIONS:
        return loss * tf.cast(step.sum_factor(), loss.dtype)
    if len(values.shape) == 0:
        # A custom loss that returned a scalar: taken for the mean over the replica's rows.
        return step.row_mean(loss)
    if reduction == "mean_with_sample_weight" and sample_weight is not None:
        return step.mean(loss, tf.reduce_sum(sample_weight))
    return step.mean(loss, tf.size(values))


def scale_loss_for_distribution(value: Any) -> Any:
    """Upstream's 1/N, but none where the row share does its work (Keras' steps) or a local loss is wanted."""
    step = hooks.current_step()
    if step is not None and (step.in_keras or step.local_loss):
        return value
    return _scale(value)


def unscale_loss_for_distribution(value: Any) -> Any:
    """The inverse of `scale_loss_for_distribution`."""
    step = hooks.current_step()
    if step is not None and step.in_keras:
        return value
    return _unscale(value)


@contextlib.contextmanager
def _local_loss(step: hooks.Step) -> Iterator[None]:
    step.local_loss = True
    try:
        yield
    finally:
        step.local_loss = False
