"""A step that takes far longer than usual: who the others wait for, and what that worker does."""

from __future__ import annotations

import threading
import time

from tfdist.cluster.peers import PeerMesh, StepClock
from tfdist.log import logger

#: A step is late when it takes so many times the median of the last ones.
_TIMES_USUAL = 10.0
#: As long as no usual duration is known: models may be traced and compiled for minutes.
_FIRST_SECONDS = 300.0
_ANSWER_SECONDS = 5.0
#: Where nobody is behind, all are asked, but not hundreds.
_MOST_ASKED = 8


class StallWatch:
    """Looks at this worker's step once a second.

    Args:
        index: this worker's.
        mesh: the others.
        clock: of this worker's executions.
        least_seconds: a shorter step is never late.
    """

    def __init__(self, index: int, mesh: PeerMesh, clock: StepClock, *, least_seconds: float) -> None:
        self._index, self._mesh, self._clock, self._least_seconds = index, mesh, clock, least_seconds
        self._execution, self._reports = 0, 0
        self._asked: dict[int, threading.Event] = {}
        self._asked_at, self._are_behind = 0.0, False

    def look(self) -> None:
        """Ask those who are waited for what they do, or say what they answered; never waits."""
        own = self._clock.beat()
        if own.begun != self._execution:
            self._execution, self._reports, self._asked = own.begun, 0, {}
        if own.inside_seconds is None:
            return
        if self._asked:
            is_late = time.monotonic() - self._asked_at > _ANSWER_SECONDS
            if is_late or all(answer.is_set() for answer in self._asked.values()):
                self._say(own.inside_seconds)
        elif own.inside_seconds > self._limit() * 2**self._reports:
            self._ask()

    def _limit(self) -> float:
        usual = self._clock.usual_seconds()
        return max(self._least_seconds, _FIRST_SECONDS if usual is None else _TIMES_USUAL * usual)

    def _ask(self) -> None:
        beats = self._mesh.beats()
        behind = [one for one, beat in beats.items() if beat.begun < self._execution or beat.inside_seconds is None]
        self._are_behind, self._asked_at = bool(behind), time.monotonic()
        self._asked = {one: self._mesh.ask_stack(one) for one in (behind or list(beats))[:_MOST_ASKED]}

    def _say(self, inside_seconds: float) -> None:
        asked, self._asked = list(self._asked), {}
        self._reports += 1
        usual = self._clock.usual_seconds()
        who = " and ".join(f"worker {one}" for one in asked)
        logger.warning(
            "worker %d: step %d has taken %.0f s so far%s. %s:\n%s",
            self._index,
            self._execution,
            inside_seconds,
            "" if usual is None else f", usually {usual:.2g} s",
            f"It waits for {who}" if self._are_behind else f"All workers are in it, {who} too",
            "\n".join(self._described(one) for one in asked),
        )

    def _described(self, index: int) -> str:
        stack = self._mesh.stack_of(index)
        silent = self._mesh.silent_seconds().get(index)
        if silent is None:
            return f"worker {index} is gone."
        if silent > _ANSWER_SECONDS:
            return f"worker {index} has said nothing for {silent:.0f} s: stopped, cut off, or busy outside of Python."
        return f"worker {index} does this now, most recent call first:\n{stack}"
