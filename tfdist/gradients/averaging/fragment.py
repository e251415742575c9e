"""A part of an optimizer's variables that is averaged at one time."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from tfdist.gradients.averaging.compression import WIRES, Exact
from tfdist.gradients.averaging.options import AveragingOptions
from tfdist.gradients.averaging.outer import Outer


class Fragment:
    """Variables that are averaged together; made in the strategy's scope.

    Args:
        variables: the model's trainable variables in it, Keras variables.
        options: how they are averaged.

    Attributes:
        outer: anchor and outer optimizer; None for plain averaging of the weights.
    """

    def __init__(self, variables: list[Any], options: AveragingOptions) -> None:
        self.variables = variables
        self._wire = WIRES[options.compression]
        self.outer = Outer(options.outer_optimizer, variables) if options.needs_anchor else None

    def average(self, companions: list[Any], share: tf.Tensor, has_rows: tf.Tensor) -> None:
        """Give the variables, and others with them, their mean over the replicas; in each replica.

        Args:
            companions: variables that are averaged as they are, such as moving statistics.
            share: this replica's part of the rows, a float scalar.
            has_rows: whether any replica had a row, a bool scalar; else all stays as it is.
        """
        if self.outer is None:
            _average(self.variables + companions, share, has_rows)
            return
        self.outer.step(self._wire.mean(self.outer.changes(), share))
        _average(companions, share, has_rows)

    @property
    def state(self) -> list[Any]:
        """What goes into files beside the model."""
        return [] if self.outer is None else self.outer.state


def _average(variables: list[Any], share: tf.Tensor, has_rows: tf.Tensor) -> None:
    values = [tf.identity(variable.value) for variable in variables]
    means = Exact().mean(values, share)
    for variable, value, mean in zip(variables, values, means, strict=True):
        variable.assign(tf.where(has_rows, mean, value))


def split(variables: list[Any], count: int) -> list[list[Any]]:
    """The variables in `count` runs of about equal size, in order; no run is empty unless there are too few.

    A variable goes to the run in which its middle falls, of all elements divided evenly.
    """
    sizes = [max(1, math.prod(variable.shape)) for variable in variables]
    total, begin = sum(sizes), 0
    runs: list[list[Any]] = [[] for _ in range(count)]
    for variable, size in zip(variables, sizes, strict=True):
        runs[(2 * begin + size) * count // (2 * total)].append(variable)
        begin += size
    return [run for run in runs if run]
