"""Shows how stale the gradients of each epoch were, under `ParameterServerStrategy`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdist.coordination.staleness import BINS, Staleness
from tfdist.strategies.parameter_server import ParameterServerStrategy

_MOST_LINES = 12
_BAR = 40


class StalenessHistogram(keras.callbacks.Callback):
    """Counts the gradients of each epoch by their staleness, and shows the counts.

    A gradient's staleness is the number of others that took their turn between the reading of its parameters and its
    own turn; under `tfdist.updates.Synchronous`, the rounds by which it was late. Up to the number of workers is usual;
    more means that some workers are slower than others.

    Only the chief runs `fit`, so that only it writes.

    Args:
        log_dir: Where to write for TensorBoard, in the subdirectory "staleness": a histogram, the mean, the largest,
            and how many were not applied, each epoch; None for nowhere.
        verbose: 1 prints the histogram each epoch as text, 0 doesn't.

    Attributes:
        counts: Of each epoch of the last `fit`, int64 [64]: gradients of staleness 0, 1, ..., 62, and more.
        dropped: Of each epoch, how many of them were not applied.

    Raises:
        ValueError: verbose is another number; or, when `fit` begins, the model isn't under ParameterServerStrategy.

    Example:
        >>> histogram = tfdist.callbacks.StalenessHistogram(log_dir="logs")
        >>> model.fit(train, epochs=10, callbacks=[histogram])
        >>> histogram.counts[0][:3]
        array([112, 740, 148])
    """

    def __init__(self, *, log_dir: str | os.PathLike[str] | None = None, verbose: int = 1) -> None:
        super().__init__()
        if verbose not in (0, 1):
            raise ValueError(f"verbose is 0 or 1. Received: verbose={verbose!r}. Leave it out for 1.")
        self._folder = None if log_dir is None else Path(log_dir) / "staleness"
        self._verbose = verbose
        self._writer: Any = None
        self.counts: list[np.ndarray] = []
        self.dropped: list[int] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins anew."""
        strategy = self.model.distribute_strategy
        if not isinstance(strategy, ParameterServerStrategy):
            raise ValueError(
                "Only under ParameterServerStrategy gradients can be stale. Expected: a model made in its scope. "
                f"Received: a model under {type(strategy).__name__}. Leave the callback out."
            )
        self.counts, self.dropped = [], []
        self._writer = None if self._folder is None else tf.summary.create_file_writer(str(self._folder))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """All gradients of the epoch have been counted."""
        staleness = self.model.distribute_strategy.staleness
        self.counts.append(staleness.counts.copy())
        self.dropped.append(staleness.dropped)
        if self._verbose:
            # As Keras' own callbacks do it: the line of its progress bar has no end yet.
            print(f"\nstaleness in epoch {epoch + 1}: {text_of(staleness)}")
        if self._writer is not None:
            _write(self._writer, epoch, staleness)

    def on_train_end(self, logs: Any = None) -> None:
        """Nothing comes any more."""
        if self._writer is not None:
            self._writer.close()


def text_of(staleness: Staleness) -> str:
    """The histogram as lines, no more than 12: several values share one if need be."""
    dropped = f"{staleness.dropped} of {staleness.pushes} dropped"
    summary = f"mean {staleness.mean:.2f}, largest {staleness.largest}, {dropped}"
    last = min(staleness.largest, BINS - 1)
    width = -(-(last + 1) // _MOST_LINES)
    sums = [(first, int(staleness.counts[first : first + width].sum())) for first in range(0, last + 1, width)]
    most = max(1, *(count for _, count in sums))
    lines = [f"{_name(first, width):>7} {'#' * -(-count * _BAR // most):<{_BAR}} {count}" for first, count in sums]
    return "\n".join([summary, *lines])


def _name(first: int, width: int) -> str:
    end = first + width - 1
    if end >= BINS - 1:
        return f"{first}.."
    return f"{first}" if width == 1 else f"{first}-{end}"


def _write(writer: Any, epoch: int, staleness: Staleness) -> None:
    values = np.repeat(np.arange(BINS), staleness.counts)
    with writer.as_default(step=epoch):
        # A bucket for each value.
        tf.summary.histogram("staleness", values, buckets=min(staleness.largest, BINS - 1) + 1)
        tf.summary.scalar("staleness/mean", staleness.mean)
        tf.summary.scalar("staleness/max", staleness.largest)
        tf.summary.scalar("staleness/dropped", staleness.dropped)
    writer.flush()
