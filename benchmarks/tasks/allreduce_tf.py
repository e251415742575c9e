"""Sums a tensor over the processes with TensorFlow's collectives. Options: strategy, arguments. Requests: bytes, times."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

from benchmarks.harness.task import Measure, Task, serve
from benchmarks.tasks.training_tf import make_strategy

WARM_UP = 2


def prepare(task: Task) -> Measure:
    os.environ["TF_CONFIG"] = task.tf_config()
    import tensorflow as tf

    strategy = make_strategy(task, 1, task.workers)
    functions: dict[int, Any] = {}

    def function(count: int) -> Any:
        source = tf.Variable(tf.ones([count]))

        def in_replica() -> Any:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(source))[0]

        return tf.function(lambda: strategy.run(in_replica))

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        count = request["bytes"] // 4
        run = functions.setdefault(count, function(count))
        seconds = []
        for _ in range(WARM_UP + request["times"]):
            begun = time.perf_counter()
            found = float(run())
            seconds.append(time.perf_counter() - begun)
        if found != task.workers:
            raise ValueError(f"Expected: {task.workers}, the sum of ones. Received: {found}.")
        return {"seconds": statistics.median(seconds[WARM_UP:])}

    return measure


if __name__ == "__main__":
    serve(prepare)
