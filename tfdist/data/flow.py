"""How fast batches flow, and how long they were waited for."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Flow:
    """What a data set has handed out so far.

    Attributes:
        steps: Batches.
        rows: Records in them.
        wait_seconds: How long the one who asked for them waited.
        at_seconds: When this was noted, on the clock of `time.monotonic`.
    """

    steps: int = 0
    rows: int = 0
    wait_seconds: float = 0.0
    at_seconds: float = 0.0

    def since(self, before: Flow) -> Flow:
        """The difference to an earlier time; `at_seconds` becomes the time between."""
        return Flow(
            self.steps - before.steps,
            self.rows - before.rows,
            self.wait_seconds - before.wait_seconds,
            self.at_seconds - before.at_seconds,
        )


class FlowMeter:
    """Adds up what the pipeline says."""

    def __init__(self) -> None:
        self._flow = Flow(at_seconds=time.monotonic())
        self._lock = threading.Lock()

    def add(self, steps: int, rows: int, wait_seconds: float) -> None:
        """Some more batches were handed out."""
        with self._lock:
            before = self._flow
            self._flow = Flow(
                before.steps + steps, before.rows + rows, before.wait_seconds + wait_seconds, time.monotonic()
            )

    def read(self) -> Flow:
        """What was handed out until now."""
        return self._flow
