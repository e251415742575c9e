"""Ends tasks: politely first, by force at last.

    Ctrl-C:            SIGINT -> SIGTERM -> SIGKILL
    SIGTERM, SIGHUP:   SIGTERM -> SIGKILL
    a task failed:     SIGTERM -> SIGKILL

Each arrow is a grace period. A second Ctrl-C skips to the next signal.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from tfdist.launch.task_process import TaskProcess

ON_INTERRUPT = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
ON_TERMINATE = (signal.SIGTERM, signal.SIGKILL)

# Enough for a task to write a checkpoint of a few hundred MB at each polite signal.
GRACE_SECONDS = 10.0


class Shutdown:
    """Goes through a row of signals while tasks are left.

    Args:
        signals: What to send, one after the other.
        grace_seconds: How long to wait before the next.
    """

    def __init__(self, signals: Sequence[int], grace_seconds: float = GRACE_SECONDS) -> None:
        self._left = list(signals)
        self._grace_seconds = grace_seconds
        self._next_at = 0.0

    def tick(self, now: float, running: Sequence[TaskProcess]) -> None:
        """Sends the next signal to `running` if its time has come."""
        if self._left and now >= self._next_at:
            signum = self._left.pop(0)
            self._next_at = now + self._grace_seconds
            for task in running:
                task.signal(signum)

    def hurry(self) -> None:
        """Makes the next `tick` send the next signal."""
        self._next_at = 0.0
