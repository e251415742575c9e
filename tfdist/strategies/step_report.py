"""Tells the launcher which step this task is in, see `tfdist.cluster.progress`."""

from __future__ import annotations

import functools
import os
from typing import Any

import keras

from tfdist.cluster.progress import ENVIRONMENT, ProgressFile, TrainingStep
from tfdist.log import logger


class StepReport(keras.callbacks.Callback):
    """Writes each step's epoch and batch before the step begins.

    Args:
        file: Of this task.
    """

    def __init__(self, file: ProgressFile) -> None:
        super().__init__()
        self._file, self._epoch = file, 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Batches are counted anew."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """One write of 26 bytes, to a file that stays in memory."""
        self._file.write(TrainingStep(self._epoch, batch))


def step_report() -> list[keras.callbacks.Callback]:
    """What a `fit` needs for the launcher; nothing if there is none."""
    path = os.environ.get(ENVIRONMENT)
    file = _file(path) if path else None
    return [StepReport(file)] if file else []


@functools.lru_cache
def _file(path: str) -> ProgressFile | None:
    """Open once in a process, for all its fits."""
    try:
        return ProgressFile(path)
    except OSError as error:
        logger.debug("the launcher isn't told of steps: %s", error)
        return None
