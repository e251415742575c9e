"""How fast workers are, so that each is given as much as it can do in the same time."""

from __future__ import annotations

import threading

# Of what is known already, when a worker has done another part.
_KEPT = 0.5


class Speeds:
    """Steps a second of each worker, in its last parts."""

    def __init__(self) -> None:
        self._speeds: dict[int, float] = {}
        self._lock = threading.Lock()

    def note(self, worker: int, steps: int, seconds: float) -> None:
        """A worker has made steps in so many seconds."""
        speed = steps / max(seconds, 1e-6)
        with self._lock:
            self._speeds[worker] = _KEPT * self._speeds.get(worker, speed) + (1 - _KEPT) * speed

    def part(self, worker: int, steps: int, most: int) -> int:
        """Steps for a worker, if those that are neither fast nor slow make so many, and nobody more than `most`."""
        with self._lock:
            if worker not in self._speeds:
                return min(steps, most)
            mean = sum(self._speeds.values()) / len(self._speeds)
            return max(1, min(most, round(steps * self._speeds[worker] / mean)))
