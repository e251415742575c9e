"""Trains with torch: DistributedDataParallel over gloo. Options: hidden. Requests: rows (of this process), steps."""

from __future__ import annotations

import datetime
import itertools
import os
from typing import Any

from benchmarks.harness.task import Measure, Task, peak_bytes, serve
from benchmarks.tasks import contest

WARM_UP = 5
_TIMEOUT = datetime.timedelta(seconds=600)


def connect(task: Task) -> None:
    """Join the process group."""
    from torch import distributed

    if task.interface:
        os.environ["GLOO_SOCKET_IFNAME"] = task.interface
    distributed.init_process_group(
        "gloo", f"tcp://{task.addresses[0]}", timeout=_TIMEOUT, rank=task.index, world_size=task.workers
    )


def make_model(task: Task) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    pairs = [
        [nn.Linear(before, after), nn.ReLU()] for before, after in itertools.pairwise(contest.widths(task.options))
    ]
    layers = [layer for pair in pairs for layer in pair][:-1]
    model = nn.Sequential(*layers)
    return nn.parallel.DistributedDataParallel(model) if task.workers > 1 else model


def prepare(task: Task) -> Measure:
    import torch

    imported, before = task.seconds_since_start(), peak_bytes()
    torch.set_num_threads(len(task.own_cores))
    if task.workers > 1:
        connect(task)
    connected = task.seconds_since_start()
    model = make_model(task)
    optimizer = torch.optim.SGD(model.parameters(), contest.RATE, momentum=contest.MOMENTUM)
    first = contest.FirstStep(task.seconds_since_start)

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        count = request["rows"]
        x, y = contest.rows(count * contest.BATCHES, contest.features(task.options), task.index)
        x, y = torch.from_numpy(x), torch.from_numpy(y).long()
        clock = contest.Clock(WARM_UP, first.note)
        for step in range(request["steps"] + WARM_UP):
            at = step % contest.BATCHES * count
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[at : at + count]), y[at : at + count]).backward()
            optimizer.step()
            clock.tick()
        clock.end()
        return {
            **clock.measured(),
            "imported": imported,
            "connected": connected,
            "first_step": first.seconds,
            "before": before,
            "peak": peak_bytes(),
        }

    return measure


if __name__ == "__main__":
    serve(prepare)
