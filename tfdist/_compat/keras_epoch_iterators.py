"""The place of a `fit` in its data, and an epoch that begins in the middle.

Upstream: an epoch always begins with its first batch. Shuffles of tf.data go on from iterator to iterator, and Keras
makes one more than it uses at the end of an epoch of known length, so the order of an epoch depends on how many there
were before.
Here: one epoch iterator's `_get_iterator` counts; to go on, as many iterators are made as there were, and the batches
that were used are taken from the last one. Steps keep their numbers. Nothing is changed but that one object.
Seen in Keras 3.15.1. Can go when Keras begins an epoch at a given step.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter


@dataclass(frozen=True)
class DataPlace:
    """How far a `fit` has come in data that can't be told where to begin.

    Attributes:
        iterators: that were made of the data, "1" for each that batches were taken from, "0" for others, in order.
        is_open: whether batches of the last one are still to come.
        batches: that were taken from the last one.
    """

    iterators: str = ""
    is_open: bool = False
    batches: int = 0


@dataclass
class EpochIterators:
    """Watches Keras' epoch iterator of the training data of one `fit`.

    Args:
        iterator: a `TFEpochIterator`, before its first epoch.
    """

    iterator: Any
    _made: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._get = self.iterator._get_iterator
        self.iterator._get_iterator = self._counted

    def _counted(self) -> Any:
        self._made.append(False)
        return self._get()

    def note_batch(self) -> None:
        """A step was made."""
        if self._made:
            self._made[-1] = True

    @property
    def steps_per_epoch(self) -> int | None:
        """Batches of an epoch; None if the data doesn't say, also where Keras has counted them."""
        return self.iterator.steps_per_epoch or self.iterator.data_adapter.num_batches

    @property
    def place(self) -> DataPlace:
        """Where the data stands between two steps, or two epochs."""
        one = self.iterator
        is_open = one._current_iterator is not None or one._steps_seen > 0
        return DataPlace("".join("01"[used] for used in self._made), is_open, one._steps_seen if is_open else 0)

    def go_on(self, place: DataPlace, step: int, *, knows_place: bool) -> None:
        """Let the next epoch begin behind its first `step` batches, right before it begins.

        Args:
            place: `place` of the earlier process.
            step: batches of the epoch that were used.
            knows_place: whether the data was told to give the rest only.
        """
        goes_on = place.is_open and (step > 0 or self.iterator.steps_per_epoch is not None)
        if not knows_place:
            self._repeat(place.iterators[:-1] if goes_on else place.iterators)
        if not goes_on:
            return
        current = iter(self.iterator._get_iterator())
        if not knows_place:
            _skip(current, place.batches)
        self._made[-1] = place.batches > 0
        self.iterator._current_iterator, self.iterator._steps_seen = current, place.batches
        if step:
            self.iterator._enumerate_iterator = lambda: self._rest(current, step)

    def _repeat(self, iterators: str) -> None:
        """Make the iterators of earlier epochs, so that shuffles come to where they were."""
        adapter = self.iterator.data_adapter
        # Keras shuffles arrays by an operation that moves on when an epoch's first batch is asked for.
        draws = isinstance(adapter, ArrayDataAdapter) and adapter._shuffle
        for used in iterators:
            one = iter(self.iterator._get_iterator())
            if draws and used == "1":
                _skip(one, 1)
            self._made[-1] = used == "1"

    def _rest(self, current: Any, first: int) -> Iterator[tuple[int, int, Any]]:
        """As upstream's `_enumerate_iterator`, from step `first` on."""
        one = self.iterator
        del one._enumerate_iterator
        one.data_adapter.on_epoch_begin()
        steps, known = one.steps_per_execution, one.steps_per_epoch or one._num_batches
        for step in range(first, known, steps) if known else itertools.count(first, steps):
            if one._num_batches and one._steps_seen >= one._num_batches:
                break
            one._steps_seen += steps
            yield step, step + steps - 1, current
        if one._num_batches and one._steps_seen >= one._num_batches:
            one._current_iterator, one._steps_seen = iter(one._get_iterator()), 0
        one.data_adapter.on_epoch_end()


def _skip(iterator: Any, batches: int) -> None:
    with contextlib.suppress(StopIteration, tf.errors.OutOfRangeError):
        for _ in range(batches):
            next(iterator)


def use_logs_if_no_step(model: Any, logs: dict[str, Any]) -> None:
    """If the rest of the epoch turns out to have no batch, its logs are those of the step before."""
    upstream = type(model)._get_metrics_result_or_logs

    def once(received: Any) -> Any:
        forget_logs(model)
        return upstream(model, received or logs)

    model.__dict__["_get_metrics_result_or_logs"] = once


def forget_logs(model: Any) -> None:
    """A step was made, which has logs of its own."""
    model.__dict__.pop("_get_metrics_result_or_logs", None)


def set_initial_epoch(model: Any, epoch: int) -> None:
    """Let the `fit` under way begin with this epoch; 0 for what `fit` was told."""
    model._initial_epoch = epoch
