"""Trains on MNIST to an accuracy with torch's DistributedDataParallel over gloo.

Options: hidden, rate, rows (of a global batch). Requests: target, parts_a_pass, most_passes.
"""

from __future__ import annotations

from typing import Any

from benchmarks.harness.task import Measure, Task, serve
from benchmarks.tasks import mnist
from benchmarks.tasks.contest import MOMENTUM
from benchmarks.tasks.training_torch import connect, make_model


def prepare(task: Task) -> Measure:
    import numpy as np
    import torch

    torch.set_num_threads(len(task.own_cores))
    connect(task)
    model = make_model(task)
    optimizer = torch.optim.SGD(model.parameters(), task.options["rate"], momentum=MOMENTUM)
    x, y, *test = mnist.load()
    x, y = torch.from_numpy(x), torch.from_numpy(y).long()
    each = task.options["rows"] // task.workers
    random = np.random.default_rng(0)

    def step(rows: Any) -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        parts, passes = request["parts_a_pass"], request["most_passes"]
        race = mnist.Race(request["target"], (test[0], test[1]), parts * passes)
        steps = len(x) // (each * task.workers) // parts
        # The same order on all workers, of which each takes its part.
        step(random.permutation(len(x))[task.index :: task.workers][:each])
        goes_on = True
        while goes_on:
            order = random.permutation(len(x))[task.index :: task.workers]
            for part in range(parts):
                race.go()
                for number in range(part * steps, part * steps + steps):
                    step(order[number * each : (number + 1) * each])
                goes_on = race.judge(_weights(model))
                if not goes_on:
                    break
        return race.result()

    return measure


def _weights(model: Any) -> list[Any]:
    found = [parameter.detach().numpy() for parameter in model.parameters()]
    return [one.T if one.ndim == 2 else one for one in found]


if __name__ == "__main__":
    serve(prepare)
