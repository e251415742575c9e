"""Gradients shared by the replicas of one worker, so that they stay equal without asking other workers.

g = sum_r n_r g_r / sum_r n_r          over the worker's replicas
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdist.gradients.reduction import divided, weighted


def shared_in_host(gradients: list[Any], rows: tf.Tensor) -> tuple[list[Any], tf.Tensor]:
    """The row-weighted mean of the worker's replicas' gradients; in replica context.

    Args:
        gradients: tensors, IndexedSlices and Nones; equal Nones on every replica.
        rows: this replica's, a float scalar.

    Returns:
        The gradients, and whether any of the replicas had rows, a bool scalar; the same on all of them.
    """

    def share(strategy: Any, gradients: list[Any], rows: Any) -> tuple[list[Any], tf.Tensor]:
        counts = strategy.experimental_local_results(rows)
        total = tf.add_n(counts)
        parts = [None if g is None else strategy.experimental_local_results(g) for g in gradients]
        return [None if p is None else divided(_sum(p, counts), total) for p in parts], total > 0

    return tf.distribute.get_replica_context().merge_call(share, args=(gradients, rows))


def _sum(parts: Any, counts: Any) -> Any:
    scaled = [weighted(part, count) for part, count in zip(parts, counts, strict=True)]
    if not isinstance(scaled[0], tf.IndexedSlices):
        return tf.add_n(scaled)
    values = tf.concat([part.values for part in scaled], 0)
    return tf.IndexedSlices(values, tf.concat([part.indices for part in scaled], 0), scaled[0].dense_shape)
