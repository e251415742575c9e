"""Looks at the clock when a unit begins and when it ends, in the graph of the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdist._compat.tensorflow_control_inputs import let_run
from tfdist.strategies.stages.timeline import Timeline


class Place(NamedTuple):
    """Where a unit is done, and of which micro-batch: all counted from 0, `kind` 0 is forward and 1 backward."""

    pipeline: int
    stage: int
    kind: int
    micro_batch: int


class NoClock:
    """Nothing is measured."""

    def begins(self, place: Place, values: list[Any]) -> list[Any]:
        """A unit has all its inputs; they go on when the clock was looked at."""
        return values

    def ends(self, place: Place, values: list[Any]) -> tuple[Any, list[Any]]:
        """An operation that is done when a unit has made its outputs, and the outputs, which go on as then."""
        with tf.control_dependencies(_tensors(values)):
            return tf.no_op(), values

    def keep(self) -> None:
        """The batch's units are all in the graph."""

    def timeline(self) -> Timeline | None:
        """Of the last step; None if there is none."""
        return None


class Clock(NoClock):
    """Keeps the times of the last step.

    A processor's: a GPU is told of a unit's kernels long before it computes them, so its times are not these.

    Args:
        pipelines, stages, micro_batches: how many there are.
    """

    def __init__(self, pipelines: int, stages: int, micro_batches: int) -> None:
        self._shape = (pipelines, stages, 2, micro_batches, 2)
        with tf.device("CPU:0"):
            self._seconds = tf.Variable(tf.fill(self._shape, np.float64("nan")), trainable=False)
        self._begun: dict[Place, list[tf.Tensor]] = {}
        self._ended: dict[Place, list[tf.Tensor]] = {}

    def begins(self, place: Place, values: list[Any]) -> list[Any]:
        """As `NoClock.begins`."""
        now, values = _noting(values)
        self._begun.setdefault(place, []).append(now)
        return values

    def ends(self, place: Place, values: list[Any]) -> tuple[Any, list[Any]]:
        """As `NoClock.ends`."""
        now, values = _noting(values)
        self._ended.setdefault(place, []).append(now)
        return now.op, values

    def keep(self) -> None:
        """As `NoClock.keep`."""
        begun, ended = self._begun, self._ended
        self._begun, self._ended = {}, {}
        with tf.device("CPU:0"):
            times = [
                [_one(begun.get(place), tf.reduce_min), _one(ended.get(place), tf.reduce_max)]
                for place in (Place(*one) for one in np.ndindex(self._shape[:-1]))
            ]
            self._seconds.assign(tf.reshape(tf.stack(times), self._shape))

    def timeline(self) -> Timeline | None:
        """As `NoClock.timeline`."""
        seconds = self._seconds.numpy()
        return None if np.isnan(seconds).all() else Timeline(seconds - np.nanmin(seconds))


def _one(times: list[tf.Tensor] | None, of: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """A train step that runs the model twice has several parts of a unit."""
    return tf.constant(np.nan, tf.float64) if times is None else of(tf.stack(times))


def _noting(values: list[Any]) -> tuple[tf.Tensor, list[Any]]:
    """Seconds, of the processor in the process where the unit is, when it has the values; and these, from then on."""
    with tf.control_dependencies(_tensors(values)), tf.device("CPU:0"):
        now = tf.timestamp()
    let_run(now.op)  # or looks at the clock would wait for each other, and units for them
    with tf.control_dependencies([now]):
        return now, [tf.identity(value) if tf.is_tensor(value) else value for value in values]


def _tensors(values: list[Any]) -> list[tf.Tensor]:
    return [value for value in values if tf.is_tensor(value)]
