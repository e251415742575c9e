"""Ends tasks: politely first, by force at last.

    Ctrl-C:            SIGINT -> SIGTERM -> SIGKILL
    SIGTERM, SIGHUP:   SIGTERM -> SIGKILL
    a task failed:     SIGTERM -> SIGKILL
    hosts changed:     SIGTERM -> SIGKILL

Each arrow is a grace period. A second Ctrl-C skips to the next signal.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from tfdist.launch.task_process import TaskProcess


@dataclass(frozen=True)
class Stage:
    """One signal, and how long to wait before the next.

    Args:
        signum: What to send.
        grace_seconds: How long a task may take to end on it.
    """

    signum: int
    grace_seconds: float = 0.0


# Python sees a signal only when TensorFlow returns from C++, and TensorFlow takes SIGTERM for a
# notice of preemption: a task that waits in a collective operation ends on neither.
ON_INTERRUPT = (Stage(signal.SIGINT, 5.0), Stage(signal.SIGTERM, 5.0), Stage(signal.SIGKILL))
# Kubernetes and Slurm kill 30 s after SIGTERM: time to write a checkpoint, and to end before them.
ON_TERMINATE = (Stage(signal.SIGTERM, 25.0), Stage(signal.SIGKILL))
# With a peer gone there is nothing to wait for but the end of a checkpoint being written.
ON_FAILURE = (Stage(signal.SIGTERM, 3.0), Stage(signal.SIGKILL))

# Nobody waits but the job itself: time for a large checkpoint.
ON_CHANGE = (Stage(signal.SIGTERM, 60.0), Stage(signal.SIGKILL))


class Shutdown:
    """Goes through stages while tasks are left.

    Args:
        stages: One of the constants above.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._left = list(stages)
        self._next_at = 0.0

    def tick(self, now: float, running: Sequence[TaskProcess]) -> None:
        """Sends the next signal to `running` if its time has come."""
        if self._left and now >= self._next_at:
            stage = self._left.pop(0)
            self._next_at = now + stage.grace_seconds
            for task in running:
                task.signal(stage.signum)

    def end_within(self, now: float, seconds: float) -> None:
        """Makes the next signal come no later than in `seconds`."""
        self._next_at = min(self._next_at, now + seconds)

    def hurry(self) -> None:
        """Makes the next `tick` send the next signal."""
        self._next_at = 0.0
