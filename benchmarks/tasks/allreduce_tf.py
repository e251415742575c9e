"""Sums a tensor over the processes with TensorFlow's collectives. Options: strategy, arguments. Requests: bytes, times.

The strategy is "tfdist" or "stock".
"""

from __future__ import annotations

import os
from typing import Any

from benchmarks.harness.task import Measure, Task, serve
from benchmarks.tasks.sums_tf import Sums
from benchmarks.tasks.training_tf import make_strategy


def prepare(task: Task) -> Measure:
    os.environ["TF_CONFIG"] = task.tf_config()
    sums = Sums(make_strategy(task, 1, task.workers))

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        return {"seconds": sums.seconds(request["bytes"], request["times"])}

    return measure


if __name__ == "__main__":
    serve(prepare)
