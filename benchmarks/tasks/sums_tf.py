"""Sums of a tensor over the replicas of a strategy, timed."""

from __future__ import annotations

import statistics
import time
from typing import Any

WARM_UP = 2


class Sums:
    """All-reduces of float32 tensors.

    Args:
        strategy: of TensorFlow, over all processes.
    """

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        self._functions: dict[int, Any] = {}

    def seconds(self, size_bytes: int, times: int) -> float:
        """The median of so many all-reduces.

        Raises:
            ValueError: a sum is wrong.
        """
        replicas = self._strategy.num_replicas_in_sync
        run = self._functions.setdefault(size_bytes, self._function(size_bytes // 4))
        seconds = []
        for _ in range(WARM_UP + times):
            begun = time.perf_counter()
            found = float(run())
            seconds.append(time.perf_counter() - begun)
            if found != replicas:
                raise ValueError(f"Expected: {replicas}, the sum of ones. Received: {found}.")
        return statistics.median(seconds[WARM_UP:])

    def _function(self, count: int) -> Any:
        import tensorflow as tf

        reduce = _sum_of_tfdist if hasattr(self._strategy, "collective_settings") else _sum_of_stock
        source = tf.Variable(tf.ones([count]))

        def in_replica() -> Any:
            return reduce(tf.identity(source))[0]

        return tf.function(lambda: self._strategy.run(in_replica))


def _sum_of_tfdist(value: Any) -> Any:
    """What gradients are summed with."""
    from tfdist.gradients import sum_over_replicas

    return sum_over_replicas([value])[0]


def _sum_of_stock(value: Any) -> Any:
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)
