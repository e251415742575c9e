"""Keeps the position in TFRecord data in step with `fit`, so that a backup knows which records were used.

Keras makes an iterator more than it uses in every epoch, and prefetching runs ahead, so only `fit` itself knows what
training has reached. A later `fit` goes on with the next epoch of the data, not with the first one again.
"""

from __future__ import annotations

from typing import Any

import keras

from tfdist._compat import hooks
from tfdist.data.reading.read_position import Position
from tfdist.data.reading.reader_calls import readers_of
from tfdist.log import logger


class FitPosition(keras.callbacks.Callback):
    """Moves the positions of a `fit`'s data.

    Args:
        positions: Of all TFRecord data that `fit` reads.
        steps_per_epoch: As given to `fit`: then its epochs are not those of the data, which passes one after another.
    """

    reads_batch_logs = False

    def __init__(self, positions: list[Position], steps_per_epoch: int | None) -> None:
        super().__init__()
        self._positions = positions
        self._is_epoch_of_data = steps_per_epoch is None
        self._progress = hooks.FitProgress(list(positions))
        self._offset: int | None = None
        self._seen = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Before a backup is restored."""
        hooks.set_progress(self.model, self._progress)
        for position in self._positions:
            position.follow_fit(self._is_epoch_of_data)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Before the epoch's iterator is made."""
        resume = hooks.take_resume(self.model, epoch)
        self._seen = resume.first_step
        self._progress.epoch = epoch
        for position, place in zip(self._positions, resume.positions, strict=False):
            position.move_to(*place)
        if self._is_epoch_of_data:
            for position in self._positions:
                position.move_to(self._epoch_of_data(epoch, position), position.step)
            hooks.note_short_epoch(self.model, any(position.step for position in self._positions))

    def _epoch_of_data(self, epoch: int, position: Position) -> int:
        if self._offset is None:
            self._offset = max(position.epoch - epoch, 0)
        return epoch + self._offset

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Before the user's callbacks, which may save."""
        steps, self._seen = batch + 1 - self._seen, batch + 1
        for position in self._positions:
            left = position.steps_per_epoch - position.step
            # The last execution of an epoch may have fewer steps than the others.
            position.advance(min(steps, left) if self._is_epoch_of_data else steps)
            if self._is_epoch_of_data and steps >= left:
                self._progress.epoch += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Before the user's callbacks."""
        self._progress.epoch = epoch + 1
        if self._is_epoch_of_data:
            hooks.note_short_epoch(self.model, False)
            for position in self._positions:
                position.move_to(self._epoch_of_data(epoch, position) + 1)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Later passes go on behind this `fit`."""
        for position in self._positions:
            position.follow_fit(False)
        hooks.set_progress(self.model, None)


def fit_position(data: Any, steps_per_epoch: int | None) -> list[keras.callbacks.Callback]:
    """What a `fit` needs for its data; nothing if that is no TFRecord data."""
    positions = [reader.position for reader in readers_of(data)]
    if len(positions) > 1:
        logger.info("input: made from %d TFRecord data sets, whose epochs are taken to begin together", len(positions))
    return [FitPosition(positions, steps_per_epoch)] if positions else []
