"""How many batches were handed out."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Flow:
    """What a data set has handed out so far.

    Attributes:
        steps: Batches.
        rows: Records in them; those that were left out for being broken are counted too.
    """

    steps: int = 0
    rows: int = 0

    def since(self, before: Flow) -> Flow:
        """The difference to an earlier time."""
        return Flow(self.steps - before.steps, self.rows - before.rows)


class FlowMeter:
    """Adds up what the pipeline says."""

    def __init__(self) -> None:
        self._flow = Flow()
        self._lock = threading.Lock()

    def add(self, steps: int, rows: int) -> None:
        """Some more batches were handed out."""
        with self._lock:
            self._flow = Flow(self._flow.steps + steps, self._flow.rows + rows)

    def read(self) -> Flow:
        """What was handed out until now."""
        return self._flow
