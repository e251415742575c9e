"""The accumulation's part of a `tf.train.Checkpoint` that holds the optimizer."""

from __future__ import annotations

import io
import zipfile

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
    """What `to_bytes` was given; takes no more memory than that, and unpickles nothing.

    Raises:
        ValueError: it is something else.
    """
    if not saved:
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(saved)) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("they are compressed, which `to_bytes` doesn't do")
        if sum(entry.file_size for entry in entries) > len(saved):
            raise ValueError(f"they are to have more than the {len(saved)} bytes that are there")
        with np.load(io.BytesIO(saved), allow_pickle=False) as file:
            arrays = dict(file)
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("there is something else among them")
    # What a file that somebody has made by hand raises is nowhere written down.
    except Exception as error:
        raise ValueError(f"it doesn't hold arrays as they are saved ({type(error).__name__}: {error})") from error
    return arrays
