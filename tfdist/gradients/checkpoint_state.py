"""The accumulation's part of a `tf.train.Checkpoint` that holds the optimizer."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf

from tfdist.gradients.accumulators import Accumulators


class CheckpointState(tf.train.experimental.PythonState):
    """Saves and restores `Accumulators` as bytes, empty between optimizer steps."""

    def __init__(self, state: Accumulators) -> None:
        self._state = state

    def serialize(self) -> bytes:
        """What was added up over all replicas; called when a checkpoint is saved, on every worker that saves."""
        arrays: dict[str, np.ndarray] = {}
        self._state.save_own_variables(arrays)
        if not arrays:
            return b""
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    def deserialize(self, string_value: bytes) -> None:
        """Go on from a checkpoint."""
        arrays = dict(np.load(io.BytesIO(string_value))) if string_value else {}
        self._state.load_own_variables(arrays)
