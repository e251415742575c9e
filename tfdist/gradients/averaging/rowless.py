"""A replica that has no row of a global batch makes no step: its weights and momentum stay.

Its gradient would be that of the row of zeros that stands for none, and momentum would move it without any gradient.
The update is made by all replicas of a worker together, so what it changed is put back where there were no rows.
Counters go on, so that `optimizer.iterations` is the number of global batches on every replica.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def update_where_rows(
    update: Callable[[list[Any]], None], gradients: list[Any], has_rows: tf.Tensor, variables: list[Any]
) -> None:
    """Call `update(gradients)`, and put `variables` back where `has_rows` is false; in replica context.

    Args:
        update: an optimizer's update of all replicas.
        gradients: this replica's.
        has_rows: a bool scalar.
        variables: Keras variables that the update may change.
    """
    if not tf.executing_eagerly() and tf.get_static_value(has_rows):
        # Known from the shape of the batch, which is the same for all replicas.
        update(gradients)
        return
    tf.distribute.get_replica_context().merge_call(
        lambda strategy, gradients, has_rows: _update_some(strategy, update, gradients, has_rows, variables),
        args=(gradients, has_rows),
    )


def _update_some(strategy: Any, update: Callable[[list[Any]], None], gradients: Any, rows: Any, kept: Any) -> None:
    """The update of all replicas of this worker, undone on those without rows; in cross-replica context."""
    rows = strategy.experimental_local_results(rows)
    if len(rows) == 1:  # what replicas share is no value for each of them
        rows = rows * len(strategy.extended.worker_devices)
    copies = [
        (copy, has) for v in kept for copy, has in zip(strategy.experimental_local_results(v.value), rows, strict=True)
    ]
    someone_has_none = tf.logical_not(tf.reduce_all(tf.stack(rows)))
    before = tf.cond(
        someone_has_none,
        lambda: [tf.identity(copy.read_value()) for copy, _ in copies],
        lambda: [tf.zeros([0], copy.dtype) for copy, _ in copies],
    )
    strategy.extended.call_for_each_replica(tf.autograph.experimental.do_not_convert(update), args=(gradients,))

    def restore() -> int:
        for (copy, has), value in zip(copies, before, strict=True):
            value = tf.ensure_shape(value, copy.shape)
            copy.assign(tf.where(has, copy.read_value(), value))
        return 0

    tf.cond(someone_has_none, restore, lambda: 0)
