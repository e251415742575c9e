"""All rows of an output, in order, on every worker."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_GATHERED = (tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.int32, tf.int64)


def gather_rows(strategy: Any, outputs: Any) -> Any:
    """Other workers' rows added to this replica's outputs; call it in replica context.

    Args:
        strategy: the synchronous strategy; within one worker `join_rows` puts the replicas' rows together instead.
        outputs: nesting of dense or ragged tensors with the rows in dimension 0.

    Raises:
        TypeError: an output of a kind that workers cannot exchange.
    """
    if strategy.num_workers == 1:
        return outputs
    return tf.nest.map_structure(_gather, outputs)


def _gather(value: Any) -> Any:
    context = tf.distribute.get_replica_context()
    if isinstance(value, tf.RaggedTensor):
        return tf.RaggedTensor.from_row_lengths(_gather(value.values), _gather(value.row_lengths()), validate=False)
    if isinstance(value, tf.SparseTensor) or value.dtype == tf.string:
        raise TypeError(
            "predict() on several workers gathers dense and ragged numeric outputs. "
            f"Received: output={value}. Return dense numbers from the model, or predict on one worker."
        )
    if value.shape.rank == 0:
        value = value[tf.newaxis]
    if value.dtype in _GATHERED:
        return context.all_gather(value, axis=0)
    return tf.cast(context.all_gather(tf.cast(value, tf.int32), axis=0), value.dtype)
