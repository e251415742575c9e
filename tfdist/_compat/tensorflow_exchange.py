"""Collectives that move values between replicas and add nothing up: all-gather and all-to-all.

Upstream: `ReplicaContext.all_gather` sends the shapes first, transposes and pads, and there is no all-to-all.
Here: the launcher of the replica's device, which has both, for values whose shapes are equal on all replicas. Only
while a function is traced: eagerly replicas run one after another, and the first would wait for ever.
Seen in TensorFlow 2.21. Can go when replica contexts have both for equal shapes.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.distribute import cross_device_ops
from tensorflow.python.ops import collective_ops


def can_exchange() -> bool:
    """Whether this is the trace of a replica whose strategy has collectives."""
    extended = tf.distribute.get_strategy().extended
    communicator = getattr(extended, "_cross_device_ops", None)
    return not tf.executing_eagerly() and isinstance(communicator, cross_device_ops.CollectiveAllReduce)


def all_gather(value: tf.Tensor) -> tf.Tensor:
    """The values of all replicas, [rows, ...] each, one after another, in an order that is the same on all.

    Args:
        value: float16, float32, float64, int32 or int64, the same static shape on every replica.
    """
    launcher = _launcher()
    return launcher._all_gather(value, launcher._options)


def all_to_all(value: tf.Tensor) -> tf.Tensor:
    """Row i goes to replica i of `all_gather`'s order; row j of the result has come from replica j.

    Args:
        value: [replicas, ...], of a dtype of `all_gather` or bfloat16, the same static shape on every replica.
    """
    launcher = _launcher()
    with tf.device(launcher._device):
        return collective_ops.all_to_all_v2(
            value,
            launcher._group_size,
            launcher._group_key,
            launcher._next_instance_key(),
            communication_hint=launcher._options.implementation.value,
            timeout=launcher._options.timeout_seconds or 0,
            ordering_token=launcher._get_ordering_token(),
        )


def _launcher() -> Any:
    context = tf.distribute.get_replica_context()
    return context.strategy.extended._cross_device_ops._launchers[context._replica_id]
