"""A job, step by step, with machines that are late and fail: what the formulas of `delays` are checked with."""

from __future__ import annotations

import random

from tfdist.planning.machines import Machines
from tfdist.planning.methods import Failures


def simulated_waiting(
    step_seconds: float, machines: Machines, *, every: int = 1, rounds: int = 100, seed: int = 0
) -> float:
    """How much longer a step takes in the mean since all wait for the last one every so many steps, in seconds."""
    draw = random.Random(seed)
    sigma = machines.variation * step_seconds
    total = 0.0
    for _ in range(rounds):
        total += max(sum(draw.gauss(step_seconds, sigma) for _ in range(every)) for _ in range(machines.devices))
    return total / rounds / every - step_seconds


def simulated_useful_share(
    machines: Machines, failures: Failures, interval_seconds: float, *, job_seconds: float, seed: int = 0
) -> float:
    """The share of its time that a job makes progress that lasts.

    Args:
        machines: hosts fail independently, at exponential times.
        failures: what they cost.
        interval_seconds: of work from one checkpoint to the next.
        job_seconds: of work that there is to do.
        seed: of the failures.
    """
    draw = random.Random(seed)
    mean = machines.seconds_between_job_failures()
    now, done, fails_at = 0.0, 0.0, draw.expovariate(1 / mean)
    while done < job_seconds:
        step = min(interval_seconds, job_seconds - done)
        ends = now + step + failures.checkpoint_seconds
        if ends <= fails_at:
            now, done = ends, done + step
            continue
        now = fails_at + failures.restart_seconds
        fails_at = now + draw.expovariate(1 / mean)
    return done / now
