"""What is told of a model, its layers, its optimizer and how it is compiled."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from tfdist._compat.keras_trainer import flatten_layers
from tfdist.verify.child.call_sites import script_line

#: What a layer's configuration may hold that matters for training on several replicas.
_SETTINGS = ("rate", "stddev", "momentum", "synchronized", "renorm", "groups", "trainable", "activity_regularizer")


def facts_of(model: Any) -> dict[str, Any]:
    """A compiled and built model's facts, ready for JSON."""
    return {
        "model": model.name,
        "class": type(model).__name__,
        "variables": [describe(variable) for variable in model.weights],
        "layers": [_layer(layer) for layer in flatten_layers(model) if layer is not model],
        "optimizer": _optimizer(model.optimizer),
        "own": {name: where for name in _OWN if (where := overridden(model, name))},
        "loss": _name(getattr(model, "loss", None)),
        "own_loss": _own_loss(getattr(model, "loss", None)),
        "steps_per_execution": int(model.steps_per_execution),
        "run_eagerly": bool(model.run_eagerly),
    }


_OWN = ("train_step", "compute_loss", "compute_metrics", "test_step")


def overridden(model: Any, name: str) -> str | None:
    """Where the script has a method of its own in place of Keras', as "file:line"; None if it has none."""
    method = getattr(type(model), name)
    if method is getattr(keras.Model, name):
        return None
    return _where(getattr(method, "python_function", method)) or name


def _where(function: Any) -> str | None:
    try:
        file, (_, line) = inspect.getsourcefile(inspect.unwrap(function)), inspect.getsourcelines(function)
    except (TypeError, OSError):
        return None
    return script_line(file or "", line)


def _own_loss(loss: Any) -> str | None:
    """Where the loss that compile() got is written in the script; None for Keras' own."""
    parts = list(loss.values()) if isinstance(loss, Mapping) else loss if isinstance(loss, (list, tuple)) else [loss]
    for part in parts:
        function = part if inspect.isfunction(part) or inspect.isclass(part) else type(part)
        if part is not None and not isinstance(part, str) and (where := _where(function)):
            return where
    return None


def describe(variable: Any) -> dict[str, Any]:
    """A variable's facts."""
    return {
        "path": variable.path,
        "shape": [int(size) for size in variable.shape],
        "dtype": str(variable.dtype),
        "trainable": bool(variable.trainable),
    }


def _layer(layer: Any) -> dict[str, Any]:
    settings = {name: getattr(layer, name) for name in _SETTINGS if hasattr(layer, name)}
    return {
        "path": layer.path or layer.name,
        "class": type(layer).__name__,
        "compute_dtype": layer.compute_dtype,
        "settings": {name: value for name, value in settings.items() if isinstance(value, (bool, int, float, str))},
        "own": script_line(inspect.getsourcefile(type(layer)) or "", 1) is not None,
    }


def _optimizer(optimizer: Any) -> dict[str, Any] | None:
    if optimizer is None:
        return None
    return {
        "class": type(optimizer).__name__,
        "config": {key: value for key, value in optimizer.get_config().items() if _is_plain(value)},
        "variables": [variable.path for variable in optimizer.variables],
    }


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _name(loss: Any) -> str:
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
