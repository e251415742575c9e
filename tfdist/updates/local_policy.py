"""How parameters that a worker trains for itself meet those on the parameter servers, the centre.

On a worker, with its own optimizer slots:

    pull: own parameters = the centre's
    step, several times: batch -> gradient at the own parameters -> Keras optimizer, on the own parameters
    meeting: change of the own parameters -> policy -> added to the centre

Between meetings nothing of the parameters travels. The centre is what validation, callbacks and files see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from tfdist.updates.policy import Policy


class Local(Protocol):
    """A worker's own parameters, in its graph.

    Attributes:
        own: Variables on the worker, one for each of the centre's.
        start: What they were after the last pull, or at the last meeting.
        velocity: Variables of the same shapes, zero after a pull, for policies that keep one.
    """

    own: list[Any]
    start: list[Any]
    velocity: list[Any]

    def update(self) -> None:
        """The optimizer's step with this step's gradients, on the own parameters."""

    def meet_after(self, steps: int, meet: Callable[[tf.Tensor], None]) -> None:
        """Call `meet` with the number of steps since the last meeting, a float32 scalar, if it's so many or more."""

    def read_centre(self) -> list[tf.Tensor]:
        """The centre's parameters as they are now."""

    def add_to_centre(self, changes: list[tf.Tensor]) -> None:
        """Add to the centre's parameters; or to the average that the chief makes, see `gradients_per_step`."""

    def pull(self) -> None:
        """Begin anew with the centre's parameters."""


class LocalPolicy(Policy):
    """What is done in a local step; implementations are frozen dataclasses.

    `gradients_per_step` says of how many changes the average is added to the centre, None if each is.
    """

    #: Whether the own parameters stay those of the worker for a whole `fit`, not for one execution.
    keeps_parameters = False
    #: Whether it keeps a velocity.
    has_velocity = False
    #: Whether executions of a fast worker are to have more steps, so that all take alike long.
    follows_speed = False
    #: Whether it counts records, so that `steps_together` has to be told how many a batch has.
    counts_records = False

    def steps_together(self, batch_rows: int) -> int:
        """Steps whose change is one, which an execution doesn't part, if batches have so many rows."""
        return 1

    def step(self, local: Local) -> None:
        """Trace what is done when a step has its gradients."""
        raise NotImplementedError

    def finish(self, local: Local) -> None:
        """Trace what is done after the last step of an execution."""
