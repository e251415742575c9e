"""When a checkpoint is due. All workers ask at every boundary, and must get the same answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

#: Steps until workers first meet to see how long a step takes.
_FIRST_STEPS = 4


class Schedule(Protocol):
    """Says when to save."""

    def is_due(self, steps: int, workers: Any) -> bool:
        """Whether to save behind this many steps of the training, counted over restarts."""

    def note_saved(self, steps: int) -> None:
        """A checkpoint was made, or restored."""


class EverySteps:
    """At the multiples of a number of steps, whatever was saved otherwise, so that a restart changes nothing."""

    def __init__(self, every_steps: int) -> None:
        self._every, self._turn = every_steps, 0

    def is_due(self, steps: int, workers: Any) -> bool:
        """Whether a multiple was passed."""
        return steps // self._every > self._turn

    def note_saved(self, steps: int) -> None:
        """The multiples up to here are done with."""
        self._turn = steps // self._every


class EverySeconds:
    """When the chief's clock says so.

    Workers ask the chief every few steps only: each time it says behind how many steps to ask again, half of those that
    it expects until a save is due.
    """

    def __init__(self, every_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._clock = every_seconds, clock
        self._saved_at = self._asked_at = clock()
        self._ask_after, self._last_asked = 0, 0

    def is_due(self, steps: int, workers: Any) -> bool:
        """The chief's answer, if it is time to ask."""
        if workers.num_workers == 1:
            return self._clock() - self._saved_at >= self._every
        if steps < self._ask_after:
            return False
        answer = workers.from_chief("whether a checkpoint is due", lambda: self._answer(steps))
        wait, due = answer.split()
        self._ask_after = steps + int(wait)
        return due == "due"

    def _answer(self, steps: int) -> str:
        now = self._clock()
        left = self._every - (now - self._saved_at)
        step_seconds = (now - self._asked_at) / max(steps - self._last_asked, 1)
        self._asked_at, self._last_asked = now, steps
        if self._ask_after == 0:
            return f"{_FIRST_STEPS} later"
        until = self._every if left <= 0 else left
        wait = max(1, int(until / max(step_seconds, 1e-6) / 2))
        return f"{wait} {'due' if left <= 0 else 'later'}"

    def note_saved(self, steps: int) -> None:
        """The clock starts anew."""
        self._saved_at = self._clock()


def make_schedules(every_steps: int | None, every_seconds: float | None) -> list[Schedule]:
    """Those that were asked for; none means the end of each epoch.

    Raises:
        ValueError: a number isn't positive.
    """
    for name, value in (("every_steps", every_steps), ("every_seconds", every_seconds)):
        if value is not None and not value > 0:
            raise ValueError(
                f"Expected: a positive {name}. Received: {name}={value}. Leave it out to save at the end of each epoch."
            )
    schedules: list[Schedule] = []
    if every_steps is not None:
        schedules.append(EverySteps(int(every_steps)))
    if every_seconds is not None:
        schedules.append(EverySeconds(every_seconds))
    return schedules
