"""Only the chief writes models; the other workers wait until the file is there.

Upstream: on several workers `ModelCheckpoint` and `model.save` write the same file at the same time and end in
BlockingIOError, FileExistsError or a torn file.
Here: the writing worker tells the others that it is done (or failed) through the cluster's key-value store. A save
that only the chief calls (`if strategy.is_chief: model.save(...)`) waits for nobody.
Seen in Keras 3.15.1. Can go when Keras knows of a chief.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import keras

from tfdist._compat import hooks


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
        if not strategy.writes_files:
            return strategy.wait_for_chief(str(filepath))
        strategy.before_write(str(filepath))
        try:
            result = write(model, filepath, *args, **kwargs)
        except BaseException as error:
            strategy.chief_wrote(str(filepath), error=f"{type(error).__name__}: {error}")
            raise
        strategy.chief_wrote(str(filepath))
        return result

    return write_on_chief
