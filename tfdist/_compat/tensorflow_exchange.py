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

_GATHERED = (tf.float16, tf.float32, tf.float64, tf.int32, tf.int64)


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
        if _is_gathered(value, context.strategy):
            return _sum_of_gathered(value)
        communicator = extended._cross_device_ops
        (total,) = communicator._all_reduce(tf.distribute.ReduceOp.SUM, [value], context._replica_id, options)
    return total


def _is_gathered(value: tf.Tensor, strategy: tf.distribute.Strategy) -> bool:
    limit = getattr(strategy, "gathered_bytes", 0)
    return value.dtype in _GATHERED and 0 < value.shape.num_elements() * value.dtype.size <= limit


def _sum_of_gathered(value: tf.Tensor) -> tf.Tensor:
    """In half as many messages, one after another, as a ring has that sums and hands round what it has summed."""
    rows = tf.reshape(all_gather(value), [-1, value.shape[0]])
    # In one order on all workers, whatever their processors; a sum over a dimension has none.
    return tf.add_n(tf.unstack(rows, tf.distribute.get_strategy().num_replicas_in_sync))


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
