"""A batch of the dataset as several micro-batches, one after the other, so that it takes a part of the memory.

Each replica cuts its rows of the batch; Keras' train step runs on each piece, and gradients are accumulated as if the
dataset had given the pieces (gradients/accumulation.py). A step of Keras, and what callbacks and checkpoints count, is
still the whole batch, so the number of pieces may be another one from one start of a job to the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdist.data.rows import slice_rows
from tfdist.strategies.logs import Values


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """Which piece of a batch.

    Args:
        index: from 0; an int or an int32 scalar.
        count: pieces of the batch.
        device: where the batch is cut; None for where the step is.
    """

    index: Any
    count: int
    device: str | None = None

    def rows_of(self, data: Any) -> Any:
        """The piece's rows of a replica's part of the batch."""
        with contextlib.nullcontext() if self.device is None else tf.device(self.device):
            return slice_rows(data, self.index, self.count)

    @property
    def is_last(self) -> tf.Tensor:
        """Whether the batch is through with it, a bool scalar; a constant where the index is one."""
        return tf.constant(self.index == self.count - 1) if self.is_fixed else tf.equal(self.index, self.count - 1)

    @property
    def is_fixed(self) -> bool:
        """Whether the index is known when the step is traced."""
        return isinstance(self.index, int)


def each_micro_batch(step: Callable[[MicroBatch], tuple[Values, tf.Tensor]], count: int) -> tuple[Values, tf.Tensor]:
    """Run a step on all pieces of a batch.

    Args:
        step: gives numbers for the logs, and the rows that they are of, an int32 scalar.
        count: pieces of the batch, at least 2.

    Returns:
        The numbers' means by rows, and the sum of rows. What isn't a floating number is the last piece's.
    """

    def next_step(index: tf.Tensor, values: Values, rows: tf.Tensor) -> tuple[tf.Tensor, Values, tf.Tensor]:
        return index + 1, *_mean_of_both((values, rows), step(MicroBatch(index, count)))

    # The first one outside of the loop: layers and optimizers make variables when they are called first.
    values, rows = step(MicroBatch(tf.constant(0), count))
    _, values, rows = tf.while_loop(
        lambda index, *_: index < count,
        next_step,
        (tf.constant(1), values, rows),
        parallel_iterations=1,  # more would hold the activations of several pieces at a time
    )
    return values, rows


def mean_of_micro_batches(results: list[tuple[Values, tf.Tensor]]) -> tuple[Values, tf.Tensor]:
    """What `each_micro_batch` returns, from what its step returned for each piece."""
    return functools.reduce(_mean_of_both, results)


def _mean_of_both(first: tuple[Values, tf.Tensor], second: tuple[Values, tf.Tensor]) -> tuple[Values, tf.Tensor]:
    (values, rows), (new_values, new_rows) = first, second
    share = tf.math.divide_no_nan(tf.cast(new_rows, tf.float64), tf.cast(rows + new_rows, tf.float64))
    return [_mean(old, new, share) for old, new in zip(values, new_values, strict=True)], rows + new_rows


def _mean(old: tf.Tensor, new: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    if not new.dtype.is_floating:
        return new
    # In float64, and so that a piece without rows, whose numbers may be NaN, weighs nothing.
    kept = tf.math.multiply_no_nan(tf.cast(old, tf.float64), 1 - share)
    return tf.cast(kept + tf.math.multiply_no_nan(tf.cast(new, tf.float64), share), new.dtype)
