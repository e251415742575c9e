"""How often a helper may be started again."""

from __future__ import annotations

from collections import deque

# What dies this often in this time won't do better at the next start.
MAX_RESTARTS, WINDOW_SECONDS = 5, 60.0


class Restarts:
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

    def count(self, name: str) -> int:
        """How often it ended, up to MAX_RESTARTS."""
        return len(self._ends.get(name, ()))
