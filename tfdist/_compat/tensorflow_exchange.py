"""Collectives of one flat tensor, launched by each replica for itself.

Upstream: `ReplicaContext.all_reduce` brings all replicas together to launch for them, in another thread.
`ReplicaContext.all_gather` sends the shapes first, transposes and pads, and there is no all-to-all.
Here: what the strategy has for the replica's device, for values whose shapes are equal on all replicas. Only while a
function is traced: eagerly replicas run one after another, and the first would wait for ever.
Seen in TensorFlow 2.21. Can go when replica contexts have all three for equal shapes.
"""

from __future__ import annotations

import contextlib
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute import cross_device_ops
from tensorflow.python.ops import collective_ops

from tfdist._compat.tensorflow_repeated_keys import repeated_keys


def can_exchange() -> bool:
    """Whether this is the trace of a replica whose strategy has collectives."""
    extended = tf.distribute.get_strategy().extended
    communicator = getattr(extended, "_cross_device_ops", None)
    return not tf.executing_eagerly() and isinstance(communicator, cross_device_ops.CollectiveAllReduce)


def all_reduce(value: tf.Tensor) -> tf.Tensor:
    """The sum of the replicas' values, by the strategy's own transport.

    Args:
        value: [n], the same static shape on every replica.
    """
    context = tf.distribute.get_replica_context()
    extended = context.strategy.extended
    options = extended._communication_options
    keeps_keys = getattr(context.strategy, "keeps_keys", False)
    with repeated_keys(value) if keeps_keys else contextlib.nullcontext():
        communicator = extended._cross_device_ops
        (total,) = communicator._all_reduce(tf.distribute.ReduceOp.SUM, [value], context._replica_id, options)
    return total


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
