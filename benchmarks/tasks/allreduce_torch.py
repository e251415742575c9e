"""Sums a tensor over the processes with torch and gloo. Requests: bytes, times."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.harness.task import Measure, Task, serve
from benchmarks.tasks.training_torch import connect

WARM_UP = 2


def prepare(task: Task) -> Measure:
    import torch
    from torch import distributed

    torch.set_num_threads(len(task.own_cores))
    connect(task)

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        target, seconds = torch.ones(request["bytes"] // 4), []
        for _ in range(WARM_UP + request["times"]):
            target.fill_(1)
            begun = time.perf_counter()
            distributed.all_reduce(target)
            found = float(target[0])
            seconds.append(time.perf_counter() - begun)
        if found != task.workers:
            raise ValueError(f"Expected: {task.workers}, the sum of ones. Received: {found}.")
        return {"seconds": statistics.median(seconds[WARM_UP:])}

    return measure


if __name__ == "__main__":
    serve(prepare)
