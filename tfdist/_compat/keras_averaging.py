"""What averaging over replicas must know of a Keras optimizer's variables.

Upstream: an optimizer's variables are one list, in which counters, moving averages of the weights and the state of the
update rule stand side by side; the averages' own list is private.
Here: the list, told apart; and a state of tfdist's that is saved with the optimizer. Seen in Keras 3.15.1. Can go when
Keras says which variable is what.
"""

from __future__ import annotations

from typing import Any

from tfdist._compat.keras_optimizers import parts_of


def averaging_of(optimizer: Any) -> Any:
    """What averages an optimizer's weights over the replicas, or None."""
    return getattr(optimizer, "_tfdist_averaging", None)


def attach_averaging(optimizer: Any, averaging: Any, state: Any, checkpoint_state: Any) -> None:
    """Remember an optimizer's averaging; files of Keras hold `state`, those of TensorFlow `checkpoint_state`."""
    optimizer._tfdist_averaging_checkpoint = checkpoint_state  # tracked by tf.train.Checkpoint
    object.__setattr__(optimizer, "_tfdist_averaging", averaging)
    object.__setattr__(optimizer, "_tfdist_averaging_state", state)


def moving_averages_of(optimizer: Any) -> list[Any]:
    """The moving averages of weights (`use_ema`) of an optimizer and of those inside it."""
    parts = [optimizer, *parts_of(optimizer)]
    lists = [getattr(part, "_model_variables_moving_average", None) or [] for part in parts]
    return [average for averages in lists for average in averages if average is not None]


def rule_state_of(optimizer: Any) -> list[Any]:
    """Variables of the update rule, such as momentum: neither counters, learning rates nor averages of weights."""
    averages = {id(average) for average in moving_averages_of(optimizer)}
    return [v for v in optimizer.variables if v.aggregation != "only_first_replica" and id(v) not in averages]
