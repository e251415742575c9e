"""All rows of an output, or all workers' bytes, in order, on every worker."""

from __future__ import annotations

from typing import Any

import numpy as np
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


class BytesGathering:
    """Gives every worker's payload, in the order of workers; call it eagerly, at the same time on every worker.

    Args:
        strategy: the synchronous strategy.
    """

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        # Traced once: `strategy.gather` makes a function of its own each time.
        self._gather = tf.function(tf.autograph.experimental.do_not_convert(self._gathered), reduce_retracing=True)

    def __call__(self, payload: bytes) -> list[bytes]:
        """The payloads, of any lengths."""
        strategy = self._strategy
        local = len(strategy.extended.worker_devices)
        words = np.frombuffer(payload + bytes(-len(payload) % 4), np.int32)

        def own(context: Any) -> tf.Tensor:
            # Replicas of a worker are neighbours, and the first one has all that the worker sends.
            is_first = context.replica_id_in_sync_group % local == 0
            header = [strategy.worker_index, len(payload), len(words)] if is_first else [-1, 0, 0]
            return tf.concat([header, words if is_first else words[:0]], 0)

        gathered = np.asarray(self._gather(strategy.experimental_distribute_values_from_function(own)))
        found: dict[int, bytes] = {}
        while len(gathered):
            worker, size, length = (int(number) for number in gathered[:3])
            if worker >= 0:
                found[worker] = gathered[3 : 3 + length].tobytes()[:size]
            gathered = gathered[3 + length :]
        return [found[worker] for worker in range(strategy.num_workers)]

    def _gathered(self, values: Any) -> tf.Tensor:
        # What is fed is on no device, and only what a replica computes is on its own.
        results = self._strategy.run_replicas(lambda words: _gather(tf.identity(words)), values)
        return self._strategy.experimental_local_results(results)[0]
