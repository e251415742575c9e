"""How often processes may be started again, and how soon: helpers now and then for ever, tasks as the user allows."""

from __future__ import annotations

from collections import deque

# What dies this often in this time won't do better at the next start.
MAX_RESTARTS, WINDOW_SECONDS = 5, 60.0
# What fails at once, for want of a file server or a port, say, may need minutes to come right.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
# An attempt that lasted longer did not fail at the start.
GOOD_ATTEMPT_SECONDS = 60.0


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
        most: How many; None for as many as it takes.
        window_seconds: Only those of the last so many seconds count; None counts all.
    """

    def __init__(self, most: int | None = 0, window_seconds: float | None = None) -> None:
        self._most, self._window_seconds = most, window_seconds
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Uses one; returns whether there was one.

        Args:
            now: On the clock of time.monotonic.
        """
        while self._window_seconds is not None and self._taken and now - self._taken[0] >= self._window_seconds:
            self._taken.popleft()
        if self._most is not None and len(self._taken) >= self._most:
            return False
        self._taken.append(now)
        return True

    def __str__(self) -> str:
        most = "" if self._most is None else f" of {self._most}"
        window = "" if self._window_seconds is None else f" within {self._window_seconds:g} s"
        return f"restart {len(self._taken)}{most}{window}"


class Backoff:
    """How long to wait before all tasks are started again: 1, 2, 4, ... seconds while attempts fail soon."""

    def __init__(self) -> None:
        self._next_seconds = FIRST_WAIT_SECONDS

    def take(self, lasted_seconds: float) -> float:
        """Returns the seconds to wait.

        Args:
            lasted_seconds: From start to end of the attempt that failed.
        """
        if lasted_seconds > GOOD_ATTEMPT_SECONDS:
            self._next_seconds = FIRST_WAIT_SECONDS
        seconds = self._next_seconds
        self._next_seconds = min(2 * seconds, LONGEST_WAIT_SECONDS)
        return seconds
