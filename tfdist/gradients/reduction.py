"""The one all-reduce of a step: row-weighted, before clipping, with None and sparse gradients left in place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.keras_compression import compression_of
from tfdist._compat.tensorflow_exchange import all_reduce, can_exchange
from tfdist.gradients.buckets import in_buckets


class Reduced(NamedTuple):
    """What all replicas go on from.

    Attributes:
        gradients: global ones, in the order given.
        state: what `commit` is to keep, if the update is made; tensors by name.
    """

    gradients: list[Any]
    state: dict[str, tf.Tensor]


class Reduction(Protocol):
    """How an optimizer's gradients become global."""

    def reduce(self, gradients: list[Any], variables: list[Any], *, share: tf.Tensor | None) -> Reduced:
        """Of one batch, as `all_reduce_gradients`; in replica context, not in a function or conditional inside it."""

    def means(self, strategy: Any, take: Callable[[], tuple[list[Any], tf.Tensor]], indices: list[int]) -> Reduced:
        """Of several micro-batches; in cross-replica context.

        Args:
            strategy: whose replicas have added up.
            take: gives a replica's sums of weighted gradients and of weights, and forgets them; for each replica.
            indices: the variables' numbers in the optimizer.
        """

    def commit(self, state: dict[str, tf.Tensor]) -> None:
        """Keep what `reduce` or `means` has left, with the update; in replica context."""


class ExactReduction:
    """All digits of all gradients, in one all-reduce."""

    def reduce(self, gradients: list[Any], variables: list[Any], *, share: tf.Tensor | None) -> Reduced:
        """Their weighted sum."""
        return Reduced(all_reduce_gradients(gradients, share=share), {})

    def means(self, strategy: Any, take: Callable[[], tuple[list[Any], tf.Tensor]], indices: list[int]) -> Reduced:
        """The sums over the sum of weights."""

        def in_replica() -> list[Any]:
            sums, weight = take()
            *totals, divisor = sum_over_replicas([*sums, weight])
            return [divided(total, divisor) for total in totals]

        return Reduced(strategy.extended.call_for_each_replica(in_replica), {})

    def commit(self, state: dict[str, tf.Tensor]) -> None:
        """Nothing is left."""


_EXACT = ExactReduction()


def reduction_of(optimizer: Any) -> Reduction:
    """How an optimizer's gradients become global: exactly, unless a strategy has attached something else."""
    return compression_of(optimizer) or _EXACT


def all_reduce_gradients(gradients: list[Any], *, share: tf.Tensor | None = None) -> list[Any]:
    """Sum gradients over all replicas; call it in replica context.

        g = sum_r share_r * g_r

    Args:
        gradients: tensors, IndexedSlices and Nones; equal shapes and equal Nones on every replica.
        share: this replica's weight, a float scalar; None for 1. Where it is 0 the gradients may be anything, NaN too.

    Returns:
        The global gradients in the order given. IndexedSlices stay sparse; their rows are those of all replicas, one
        after another and not merged, which is what one device would have seen for the global batch.
    """
    present = [g for g in gradients if g is not None]
    if not present:
        return gradients
    reduced = iter(sum_over_replicas([weighted(g, share) for g in present]))
    return [None if g is None else next(reduced) for g in gradients]


def average_over_replicas(values: list[tf.Tensor], *, share: tf.Tensor) -> list[tf.Tensor]:
    """The share-weighted mean of each value over all replicas, in one all-reduce; call it in replica context."""
    return sum_over_replicas([weighted(v, share) for v in values])


def weighted(gradient: Any, weight: tf.Tensor | None) -> Any:
    """A gradient times a scalar, sparse ones by their rows; None for 1. Weight 0 gives 0 whatever the gradient is."""
    # A mean over no rows is NaN, and must not spread from a replica that had none.
    return gradient if weight is None else _scaled(tf.math.multiply_no_nan, gradient, weight)


def divided(gradient: Any, divisor: tf.Tensor) -> Any:
    """A gradient over a scalar, 0 where that is 0; sparse ones by their rows."""
    return _scaled(tf.math.divide_no_nan, gradient, divisor)


def _scaled(operation: Callable[[Any, Any], Any], gradient: Any, scalar: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        values = operation(gradient.values, tf.cast(scalar, gradient.values.dtype))
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return operation(gradient, tf.cast(scalar, gradient.dtype))


def sum_over_replicas(values: list[Any]) -> list[Any]:
    """Each value's sum over all replicas; call it in replica context.

    In one all-reduce for each dtype, or, under strategies that span processes, in buckets, the last values first.

    Args:
        values: tensors and IndexedSlices, of equal shapes on every replica; IndexedSlices may have any number of rows.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return values
    sums: list[Any] = [None] * len(values)
    for dtype in sorted({value.dtype.name for value in values}):
        places = [place for place, value in enumerate(values) if value.dtype.name == dtype]
        for reduce, some in _groups(context, values, places):
            for place, total in zip(some, reduce([values[place] for place in some]), strict=True):
                sums[place] = total
    return sums


def _groups(context: Any, values: list[Any], places: list[int]) -> list[tuple[Callable[[Any], Any], list[int]]]:
    """What sums which of the values at these places."""
    strategy = hooks.active_strategy()
    bucket_bytes, cuts = getattr(strategy, "bucket_bytes", 0), getattr(strategy, "cuts_buckets", True)
    has_buckets = bucket_bytes and can_exchange()
    fitting = [place for place in places if has_buckets and _fits_buckets(values[place])]
    rest = [place for place in places if place not in fitting]
    groups = (
        (functools.partial(in_buckets, send=all_reduce, bucket_bytes=bucket_bytes, cuts=cuts), fitting),
        (functools.partial(context.all_reduce, tf.distribute.ReduceOp.SUM), rest),
    )
    return [(reduce, some) for reduce, some in groups if some]


def _fits_buckets(value: Any) -> bool:
    return not isinstance(value, tf.IndexedSlices) and value.shape.is_fully_defined()
