"""Rules by which an update is left out.

A rule sees the global gradients of one optimizer step, the weighted mean over all micro-batches and replicas, before
clipping and without the loss scale, and says whether to skip the update. It runs in every replica on equal values, so
all replicas agree. A skipped update leaves weights, optimizer state and `optimizer.iterations` as they were; the logs
of `fit` count it as `skipped_<name>`.

Rules are plain functions with a name of their own:

    def skip_early_spikes(gradients):
        return tf.linalg.global_norm(gradients) > 50.0

    options = tfdist.gradients.AccumulationOptions(4, skip_rules=[skip_early_spikes])
"""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow as tf


class SkipRule(Protocol):
    """A function of the gradients; its `__name__` is the reason in the logs."""

    __name__: str

    def __call__(self, gradients: list[Any]) -> tf.Tensor:
        """True to skip the update, a bool scalar.

        Args:
            gradients: tensors and IndexedSlices in the shapes of the variables; no Nones.
        """


def non_finite(gradients: list[Any]) -> tf.Tensor:
    """Skip an update with an inf or NaN anywhere."""
    finite = [tf.reduce_all(tf.math.is_finite(values)) for values in _values(gradients)]
    return tf.logical_not(tf.reduce_all(tf.stack(finite)))


def norm_above(limit: float) -> SkipRule:
    """Skip an update whose gradients' global norm is above `limit`.

    Args:
        limit: of the square root of the sum of all squares, above 0.

    Raises:
        ValueError: the limit is not a positive number.
    """
    if not limit > 0:
        raise ValueError(f"Expected: a limit above 0. Received: limit={limit}. Give the largest norm to accept.")

    def norm_above(gradients: list[Any]) -> tf.Tensor:
        return tf.linalg.global_norm(gradients) > limit

    return norm_above


def _values(gradients: list[Any]) -> list[tf.Tensor]:
    return [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
