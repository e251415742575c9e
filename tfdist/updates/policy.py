"""How a worker's gradient meets the parameters on the parameter servers.

Glossary:
    push: one gradient, of one optimizer step, on its way to the parameters.
    version: how many pushes took their turn so far, counted on a ps.
    staleness: versions between the one at which a gradient's parameters were read and the one that it took.

On a worker, in a step:

    version read -> parameters read -> gradient -> version taken -> policy -> optimizer, on the ps

Each arrow is a dependency of data or control, so the staleness counts every push that can have changed the parameters
between reading and applying, and possibly a few that had not arrived yet; never too few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Push:
    """One gradient, in the graph of a worker.

    Attributes:
        gradients: Of the loss, one a variable: tensors, IndexedSlices or None.
        variables: Keras variables.
        read: What the gradients were computed with, one a variable; None where the policy doesn't ask for it, and for
            variables in shards, whose rows are looked up.
        staleness: An int64 scalar.
        optimizer: Keras optimizer that applies them.
        update: Its `apply`.
        name: Under which the policy may keep variables on the worker.
    """

    gradients: list[Any]
    variables: list[Any]
    read: list[tf.Tensor | None]
    staleness: tf.Tensor
    optimizer: Any
    update: Callable[[list[Any], list[Any]], None]
    name: str


class Policy:
    """What is done with a push; implementations are frozen dataclasses, since options don't change during a `fit`."""

    #: Whether it asks for the values that the gradients were computed with.
    needs_values = False
    #: Whether some are not applied.
    drops = False
    #: How stale a push may be for the next execution to begin; None is no matter.
    waits_at: int | None = None

    def gradients_per_step(self, workers: int) -> int | None:
        """How many pushes make one optimizer step; None if each is one, and `apply` is called."""
        return None

    def apply(self, push: Push) -> tf.Tensor:
        """Trace what is done with it.

        Returns:
            Whether it was applied, a bool scalar.
        """
        raise NotImplementedError
