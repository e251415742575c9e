"""How much each worker is given, so that all take alike long."""

from __future__ import annotations

import math
import threading

# Of the most that a worker is given when nobody knows better.
_SMALLEST = 0.01


class PartSizes:
    """Of the workers, in parts of an average one.

    After each part of a worker, which took it T seconds,

        size <- size sqrt(mean of all workers' last T / T)

    The root keeps one part that took long by chance from halving the next. What a part costs beside its steps is in T,
    so a worker whose parts are small doesn't look slow for it.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, float] = {}
        self._seconds: dict[int, float] = {}
        self._lock = threading.Lock()

    def note(self, worker: int, seconds: float) -> None:
        """How long a worker's part took."""
        with self._lock:
            self._seconds[worker] = max(seconds, 1e-6)
            mean = sum(self._seconds.values()) / len(self._seconds)
            self._sizes[worker] = self._sizes.get(worker, 1.0) * math.sqrt(mean / self._seconds[worker])
            average = sum(self._sizes.values()) / len(self._sizes)
            self._sizes = {each: max(_SMALLEST, size / average) for each, size in self._sizes.items()}

    def steps(self, worker: int, average: int, most: int) -> int:
        """Of a worker's next part, if parts have so many on average and none more than `most`."""
        with self._lock:
            return max(1, min(most, round(average * self._sizes.get(worker, 1.0))))
