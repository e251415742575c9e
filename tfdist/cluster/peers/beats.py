"""How far a worker is, as it tells the others."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_REMEMBERED_STEPS = 64
#: Workers are at most one round apart.
_REMEMBERED_ROUNDS = 16
#: With fewer durations than this, the usual one isn't known: the first execution is traced and compiled.
_LEAST_STEPS = 5


@dataclass(frozen=True)
class Beat:
    """What a worker says of itself.

    Args:
        begun: executions that it has begun.
        inside_seconds: how long it has been in the last of them; None between two.
        ended: after how many it has last come to the end of an epoch, evaluation or prediction; None before the first.
    """

    begun: int = 0
    inside_seconds: float | None = None
    ended: int | None = None


class StepClock:
    """Notes when executions begin and end. One thread makes them, others may look."""

    def __init__(self) -> None:
        self._begun = 0
        self._entered_at: float | None = None
        self._durations: deque[float] = deque(maxlen=_REMEMBERED_STEPS)
        self._ends: deque[int] = deque(maxlen=_REMEMBERED_ROUNDS)

    @contextlib.contextmanager
    def execution(self) -> Iterator[None]:
        """Around an execution."""
        self._begun += 1
        self._entered_at = entered_at = time.monotonic()
        try:
            yield
            self._durations.append(time.monotonic() - entered_at)
        finally:
            self._entered_at = None

    def beat(self) -> Beat:
        """How far this worker is."""
        entered_at = self._entered_at
        inside_seconds = None if entered_at is None else time.monotonic() - entered_at
        return Beat(self._begun, inside_seconds, self._ends[-1] if self._ends else None)

    def end_round(self) -> None:
        """An epoch, an evaluation or a prediction has no more executions."""
        self._ends.append(self._begun)

    def goes_on_after(self, executions: int) -> bool:
        """Whether this worker made more executions in a round than one that ended it after so many."""
        return self._begun > executions and executions not in self._ends

    def usual_seconds(self) -> float | None:
        """The median of the last executions; None as long as there were too few."""
        durations = list(self._durations)
        return statistics.median(durations) if len(durations) >= _LEAST_STEPS else None
