"""A part of an optimizer's variables that is averaged at one time."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from tfdist.gradients.averaging.compression import Exact, wire_for
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
        self._wire = wire_for(options.compression, variables)
        self.outer = Outer(options.outer_optimizer, variables) if options.needs_anchor else None

    def values(self, companions: list[Any]) -> list[tf.Tensor]:
        """The variables and others with them, such as moving statistics, as they are; in each replica."""
        return [tf.identity(variable.value) for variable in self.variables + companions]

    def mean(self, values: list[tf.Tensor], share: tf.Tensor) -> list[tf.Tensor]:
        """What crosses the wire: means over the replicas of `values`, or of changes where there is an anchor.

        Args:
            values: as `values` gave them.
            share: this replica's part of the rows, a float scalar.
        """
        if self.outer is None:
            return Exact().mean(values, share)
        own, others = values[: len(self.variables)], values[len(self.variables) :]
        return self._wire.mean(self.outer.changes(own), share) + Exact().mean(others, share)

    def go_on(
        self, companions: list[Any], means: list[tf.Tensor], has_rows: tf.Tensor, since: list[tf.Tensor] | None = None
    ) -> None:
        """Go on from what `mean` gave; in each replica.

        Args:
            companions: as for `values`.
            means: of the variables and the companions.
            has_rows: whether any replica had a row, a bool scalar; else what is averaged as it is stays so.
            since: the values that were averaged, if training has gone on: what came on top of them is kept.
        """
        variables, values = self.variables + companions, list(means)
        moved = 0 if self.outer is None else len(self.variables)
        if self.outer is not None:
            values[:moved] = self.outer.step(means[:moved])
        for index, (variable, value) in enumerate(zip(variables, values, strict=True)):
            if since is not None:
                value = variable.value + (value - since[index])
            variable.assign(value if index < moved else tf.where(has_rows, value, variable.value))

    @property
    def owed(self) -> list[tuple[tf.Variable, bool]]:
        """What each replica keeps of compression; whether it adds up over replicas, by variable."""
        return self._wire.owed

    @property
    def state(self) -> list[Any]:
        """What goes into files beside the model."""
        return [] if self.outer is None else self.outer.state


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
