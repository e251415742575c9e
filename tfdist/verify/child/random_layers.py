"""Layers that draw random numbers while training, made inert.

Replicas draw other numbers than one device, by nature: a difference says nothing. So both runs train with these layers
as they are in inference (Dropout passes its inputs on, RandomFlip does not flip), and the report names them.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras

from tfdist._compat.keras_trainer import flatten_layers


def make_inert(model: Any) -> list[str]:
    """Have the random layers of a model called with training=False; returns their paths."""
    return [layer.path or layer.name for layer in flatten_layers(model) if _is_random(layer) and calm_down(layer)]


def _is_random(layer: Any) -> bool:
    if isinstance(layer, keras.Model):
        return False  # a model with numbers of its own draws them in its train_step
    owns_seeds = any(isinstance(value, keras.random.SeedGenerator) for value in vars(layer).values())
    strengths = [getattr(layer, name, None) for name in ("rate", "stddev", "dropout", "recurrent_dropout")]
    given = [strength for strength in strengths if isinstance(strength, (int, float))]
    return owns_seeds and (not given or any(given))


def calm_down(layer: Any) -> bool:
    """Whether the layer knows training from inference; then it infers from now on."""
    call = layer.call
    if "training" not in inspect.signature(call).parameters:
        return False
    if hasattr(call, "is_calm"):
        return True

    @functools.wraps(call)
    def calm(*args: Any, training: Any = None, **kwargs: Any) -> Any:
        return call(*args, training=False, **kwargs)

    calm.is_calm = True  # type: ignore[attr-defined]
    layer.call = calm
    return True
