"""A contender of the harness' own tests: no library, and it fails when it's told to."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.task import Measure, Task, serve


def prepare(task: Task) -> Measure:
    if task.options.get("fails_at_start"):
        raise RuntimeError("no library here")
    asked = 0

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked == task.options.get("fails_at"):
            raise ValueError("the second time is too much")
        if asked == task.options.get("hangs_at"):
            time.sleep(1000)
        if "log" in task.options and task.index == 0:
            with Path(task.options["log"]).open("a") as log:
                log.write(f"{task.options['name']} {request['size']}\n")
        return {
            "pid": os.getpid(),
            "seconds": float(request["size"]),
            "asked": asked,
            "cores": sorted(os.sched_getaffinity(0)),
            "tf_config": task.tf_config(),
            "address": task.addresses[task.index],
        }

    return measure


if __name__ == "__main__":
    serve(prepare)
