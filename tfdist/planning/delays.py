"""What uneven and failing machines cost."""

from __future__ import annotations

import math
from statistics import NormalDist


def latest_of(count: int) -> float:
    """The mean of the largest of so many normal numbers, in standard deviations (Blom, 1958; to 1% from 2 on)."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0


def waiting_seconds(step_seconds: float, variation: float, count: int, every: int = 1) -> float:
    """How much longer a step takes, in the mean, since all wait for the last.

    Args:
        step_seconds: of one replica, in the mean.
        variation: its standard deviation, as a share.
        count: of replicas.
        every: steps between two waits; what one is late in a step it may make good in the next.
    """
    return step_seconds * variation * latest_of(count) / math.sqrt(every)


def useful_share(seconds_between_failures: float, checkpoint_seconds: float, restart_seconds: float) -> float:
    """Of a job's time, with checkpoints at the best interval (Young, 1974).

    Args:
        seconds_between_failures: of the job.
        checkpoint_seconds: that training waits for each, above 0.
        restart_seconds: from a failure until training goes on.
    """
    if math.isinf(seconds_between_failures):
        return 1.0
    interval = checkpoint_interval(seconds_between_failures, checkpoint_seconds)
    lost = checkpoint_seconds / interval + (restart_seconds + interval / 2) / seconds_between_failures
    return max(0.0, 1 / (1 + lost))


def checkpoint_interval(seconds_between_failures: float, checkpoint_seconds: float) -> float:
    """The best time from one checkpoint to the next."""
    return math.sqrt(2 * checkpoint_seconds * seconds_between_failures)
