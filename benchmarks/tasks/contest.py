"""The perceptron that all contenders train, and its data; no library is imported here but NumPy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

FEATURES, CLASSES = 784, 10
RATE, MOMENTUM = 0.05, 0.9
#: Batches that are made once and trained on again and again.
BATCHES = 4


def features(options: dict[str, Any]) -> int:
    """Numbers of an example."""
    return options.get("features", FEATURES)


def widths(options: dict[str, Any]) -> list[int]:
    """Inputs, hidden layers, classes."""
    return [features(options), *options["hidden"], CLASSES]


def rows(count: int, features: int, seed: int = 0) -> Any:
    """Images and labels."""
    import numpy as np

    random = np.random.default_rng(seed)
    return random.random((count, features), "float32"), random.integers(0, CLASSES, count).astype("int32")


class Clock:
    """Seconds a step, from the end of the first steps to the end of the last.

    Args:
        warm_up: steps that don't count.
        on_first: called at the end of the very first step.
    """

    def __init__(self, warm_up: int, on_first: Callable[[], None] = lambda: None) -> None:
        self._warm_up, self._on_first, self._steps, self._begun, self._ended = warm_up, on_first, 0, 0.0, 0.0

    def tick(self) -> None:
        """A step is over."""
        self._steps += 1
        if self._steps == 1:
            self._on_first()
        if self._steps == self._warm_up:
            self._begun = time.perf_counter()

    def end(self) -> None:
        """All steps are over; what `fit` does behind its epoch doesn't count."""
        self._ended = time.perf_counter()

    def seconds_a_step(self) -> float:
        """When all steps are over."""
        return (self._ended - self._begun) / (self._steps - self._warm_up)

    def measured(self) -> dict[str, float]:
        """What a task answers of its steps, when all are over."""
        return {"step": self.seconds_a_step(), "ending": self.seconds_since_end()}

    def seconds_since_end(self) -> float:
        """What `fit` did behind its epoch."""
        return time.perf_counter() - self._ended


class FirstStep:
    """When the first step of a process was over.

    Args:
        seconds_since_start: of the process.
    """

    def __init__(self, seconds_since_start: Callable[[], float]) -> None:
        self._now, self.seconds = seconds_since_start, 0.0

    def note(self) -> None:
        """A step is over, perhaps the first."""
        self.seconds = self.seconds or self._now()


def tick_of(keras: Any, clock: Clock) -> Any:
    """The callback by which `fit` of a Keras, today's or the legacy one, ticks."""

    class Tick(keras.callbacks.Callback):
        #: As if it weren't there: tfdist would add up metrics in each step for a callback that may look at them.
        reads_batch_logs = False

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            clock.tick()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            clock.end()

    return Tick()
