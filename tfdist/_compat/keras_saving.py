"""Only the chief writes models; the other workers wait until the file is there.

Upstream: on several workers `ModelCheckpoint` and `model.save` write the same file at the same time and end in
BlockingIOError, FileExistsError or a torn file. A save makes an optimizer, to see which attributes all have; in the
scope of a strategy that asks the other workers for the initial values of its variables.
Here: the chief saves outside of scopes. It tells the others that it is done (or failed) through the cluster's key-value
store. A save that only the chief calls (`if strategy.is_chief: model.save(...)`) waits for nobody.
Seen in Keras 3.15.1. Can go when Keras knows of a chief.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import keras
import tensorflow as tf

from tfdist._compat import hooks

Result = TypeVar("Result")


def install() -> None:
    """Replace `save`, `save_weights` and `export` of models, and the functions that do the same."""
    for name in ("save", "save_weights", "export"):
        setattr(keras.Model, name, _on_chief(getattr(keras.Model, name)))
    # `tf.keras` is keras._tf_keras.keras.
    legacy_names = [importlib.import_module(f"keras._tf_keras.keras.{name}") for name in ("saving", "models")]
    for module in (keras.saving, keras.models, *legacy_names):
        for name in ("save_model", "save_weights"):
            if hasattr(module, name):
                setattr(module, name, _on_chief(getattr(module, name)))


def _on_chief(write: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(write)
    def write_on_chief(model: Any, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        strategy = hooks.model_strategy(model)
        if strategy is None:
            return write(model, filepath, *args, **kwargs)
        with strategy.saving(model, str(filepath)):
            if not strategy.writes_files:
                return strategy.wait_for_chief(str(filepath))
            return _written(strategy, str(filepath), lambda: write(model, filepath, *args, **kwargs))

    return write_on_chief


def _written(strategy: Any, path: str, write: Callable[[], Result]) -> Result:
    strategy.before_write(path)
    try:
        result = outside_scope(write)
    except BaseException as error:
        strategy.chief_wrote(path, error=f"{type(error).__name__}: {error}")
        raise
    strategy.chief_wrote(path)
    return result


def outside_scope(function: Callable[[], Result]) -> Result:
    """Call a function in no strategy's scope."""
    if not tf.distribute.has_strategy():
        return function()
    # Scopes are of threads.
    with ThreadPoolExecutor(1, "tfdist-outside-scope") as outside:
        return outside.submit(function).result()
