"""`add_loss` and activity regularizers belong to the replica that computed them.

Upstream: a layer keeps them in one list for all replicas. MirroredStrategy's replicas take turns at every collective,
so where one lies between the forward pass and the loss, each replica finds the last replica's losses in the list.
Here: inside a step the list is the step's own. Seen in Keras 3.15.1 with TensorFlow 2.21. Can go when Keras' lists
are kept by replica.
"""

from __future__ import annotations

from typing import Any

import keras

from tfdist._compat import hooks


def install() -> None:
    """Make `Layer._losses` a property, which falls through to the instance's list outside of steps."""
    keras.layers.Layer._losses = property(_get_losses, _set_losses)


def _get_losses(layer: Any) -> list[Any]:
    step = hooks.current_step()
    if step is None:
        if "_losses" not in layer.__dict__:
            raise AttributeError("_losses")
        return layer.__dict__["_losses"]
    return step.layer_losses.setdefault(id(layer), (layer, []))[1]


def _set_losses(layer: Any, losses: list[Any]) -> None:
    layer.__dict__["_losses"] = losses
