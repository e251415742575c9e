"""Weights of a checkpoint for a model that isn't trained on from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tfdist import _compat
from tfdist._compat import hooks
from tfdist.checkpoint import shards
from tfdist.checkpoint.files import CheckpointFiles
from tfdist.checkpoint.state import WEIGHTS
from tfdist.errors import CheckpointError


def load_weights(model: Any, path: str | os.PathLike[str]) -> None:
    """Load the weights of a checkpoint, and its optimizer if the model has one that is built.

    The model may be under any strategy or none, whatever the checkpoint was made under. On a mesh each process reads
    the parts that its devices hold.

    Args:
        model: a built model.
        path: a checkpoint's folder, or the directory of a training, whose newest whole checkpoint is taken.

    Raises:
        CheckpointError: there is no whole checkpoint.
        ValueError: it has other weights than the model.

    Example:
        >>> model = build_model()
        >>> tfdist.checkpoint.load_weights(model, "/shared/run-7")
        >>> model.save("model.keras")
    """
    _compat.install()
    directory, name = Path(path), None
    if not (directory / WEIGHTS).exists() and not (directory / shards.INDEX).exists():
        name = CheckpointFiles(directory, keep=1).newest_whole()
    elif (problem := CheckpointFiles(directory.parent, keep=1).problem_of(directory.name)) is None:
        directory, name = directory.parent, directory.name
    else:
        raise CheckpointError(f"Expected: a whole checkpoint. Received: {str(directory)!r}: {problem}. Take another.")
    if name is None:
        raise CheckpointError(
            "Expected: a checkpoint's folder, or a directory with one that is whole. "
            f"Received: path={str(directory)!r}. Name the directory that tfdist.callbacks.Checkpoint was given."
        )
    shards.load(model, directory / name, WEIGHTS, getattr(hooks.model_strategy(model), "variable_parts", None))
