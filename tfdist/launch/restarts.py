"""How often processes may be started again: helpers now and then for ever, tasks as often as the user allows."""

from __future__ import annotations

from collections import deque

# What dies this often in this time won't do better at the next start.
MAX_RESTARTS, WINDOW_SECONDS = 5, 60.0


class HelperRestarts:
    """Counts the ends of each helper."""

    def __init__(self) -> None:
        self._ends: dict[str, deque[float]] = {}

    def may_start_again(self, name: str, now: float) -> bool:
        """Whether a helper that ended now is to be started again.

        Args:
            name: Of the helper.
            now: On the clock of time.monotonic.
        """
        ends = self._ends.setdefault(name, deque(maxlen=MAX_RESTARTS))
        is_hopeless = len(ends) == MAX_RESTARTS and now - ends[0] < WINDOW_SECONDS
        ends.append(now)
        return not is_hopeless


class RestartBudget:
    """The restarts of a launch, of single tasks and of all of them alike.

    Args:
        most: How many.
    """

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self.used = 0

    def take(self) -> bool:
        """Uses one; returns whether there was one."""
        if self.used >= self.most:
            return False
        self.used += 1
        return True

    def __str__(self) -> str:
        return f"restart {self.used} of {self.most}"
