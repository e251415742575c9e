"""How many steps of a `fit` were made twice, because workers failed in the middle of them."""

from __future__ import annotations

from typing import Any

import keras

from tfdist.log import logger


class RepeatedSteps(keras.callbacks.Callback):
    """Compares the optimizer's count, to which every applied step adds, with the steps that were reported, each once.

    Args:
        strategy: Counts the reported steps.
    """

    def __init__(self, strategy: Any) -> None:
        super().__init__()
        self._strategy = strategy
        self._before: int | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Counts from here."""
        self._strategy.reported_steps = self._strategy.repeated_steps = 0
        self._before = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """By now BackupAndRestore has restored the optimizer's count."""
        if self._before is None:
            self._before = self._iterations

    def on_train_end(self, logs: Any = None) -> None:
        """Says how many there were, if any."""
        applied, reported = self._iterations - (self._before or 0), self._strategy.reported_steps
        # A loss scale that is too large leaves out steps, which the optimizer doesn't count.
        self._strategy.repeated_steps = max(0, applied - reported)
        if applied > reported:
            logger.warning(
                "%d of %d steps were applied twice, since workers failed in them; no example was left out",
                applied - reported,
                reported,
            )

    @property
    def _iterations(self) -> int:
        optimizer = self.model.optimizer
        return 0 if optimizer is None or not optimizer.built else int(optimizer.iterations)
