"""A worker of benchmarks/accumulation.py that trains with torch: DistributedDataParallel and `no_sync`.

python benchmarks/accumulation_torch_task.py PLAN.json    # with torch's own variables: RANK, MASTER_ADDR, ...
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import sys
from collections.abc import Callable

import torch
from accumulation_meter import CLASSES, FEATURES, HIDDEN, Case, Meter, Plan, Results
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

WORKERS = 2
TIMEOUT = datetime.timedelta(seconds=60)


def make_model() -> nn.Module:
    torch.manual_seed(0)
    sizes = [FEATURES, *HIDDEN]
    hidden = [[nn.Linear(before, after), nn.ReLU()] for before, after in itertools.pairwise(sizes)]
    return nn.Sequential(*[layer for pair in hidden for layer in pair], nn.Linear(sizes[-1], CLASSES))


def training(case: Case, *, together: bool) -> Callable[[int, Meter], None]:
    """Trains for a number of optimizer steps."""
    plain = make_model()
    model = DistributedDataParallel(plain) if together else plain
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = torch.rand(case.rows // WORKERS, FEATURES), torch.randint(0, CLASSES, (case.rows // WORKERS,))

    def train(optimizer_steps: int, meter: Meter) -> None:
        for batch in range(1, optimizer_steps * case.steps + 1):
            is_last = batch % case.steps == 0
            with contextlib.nullcontext() if is_last or not together else model.no_sync():
                (nn.functional.cross_entropy(model(x), y) / case.steps).backward()
            if is_last:
                optimizer.step()
                optimizer.zero_grad(set_to_none=False)
            meter.tick()

    return train


def main() -> None:
    plan = Plan.read(sys.argv[1])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=TIMEOUT)
    trainings = {case: (training(case, together=True), training(case, together=False)) for case in plan.cases}
    for both in trainings.values():
        for train in both:
            train(2, Meter("", 1))
    results = Results()
    for _ in range(plan.rounds):
        for case, (train, train_alone) in trainings.items():
            alone, together = Meter(plan.interface, case.steps), Meter(plan.interface, case.steps)
            train_alone(plan.optimizer_steps, alone)
            distributed.barrier()
            train(plan.optimizer_steps, together)
            results.add(case, together, alone)
    results.write(plan.output)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
