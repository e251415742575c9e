"""How stale the gradients were that workers pushed."""

from __future__ import annotations

import numpy as np

#: Of the histogram; the last one counts all that are staler.
BINS = 64


class Staleness:
    """Counts of pushes, in a `fit` or an epoch of it.

    Attributes:
        counts: Pushes by staleness 0, 1, ..., BINS - 2, and more.
        largest: The largest staleness.
        dropped: Pushes that were not applied.
        total: The sum over all pushes.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.largest = self.dropped = self.total = 0

    @property
    def pushes(self) -> int:
        """All that were counted."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Over all pushes; 0 if there are none."""
        return self.total / max(1, self.pushes)

    def logs(self, *, with_dropped: bool) -> dict[str, float]:
        """What `fit` shows."""
        shown = {"staleness": self.mean, "max_staleness": float(self.largest)}
        return {**shown, "dropped": float(self.dropped)} if with_dropped else shown

    def add_late(self, rounds: int) -> None:
        """Add a push that was late by so many rounds, and dropped if that's any."""
        self.counts[min(rounds, BINS - 1)] += 1
        self.total += rounds
        self.largest = max(self.largest, rounds)
        self.dropped += rounds > 0

    def add(self, report: np.ndarray) -> None:
        """Add an execution's: counts, total, largest, dropped."""
        total, largest, dropped = map(int, report[BINS:])
        self.counts += report[:BINS]
        self.total += total
        self.largest = max(self.largest, largest)
        self.dropped += dropped
