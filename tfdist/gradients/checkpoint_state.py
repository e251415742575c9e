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
        return to_bytes(arrays)

    def deserialize(self, string_value: bytes) -> None:
        """Go on from a checkpoint."""
        self._state.load_own_variables(from_bytes(string_value))


def to_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Arrays by name as a checkpoint holds them; nothing if there are none."""
    if not arrays:
        return b""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(saved: bytes) -> dict[str, np.ndarray]:
    """What `to_bytes` was given."""
    return dict(np.load(io.BytesIO(saved))) if saved else {}
