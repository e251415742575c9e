"""Keras' `.weights.h5` in two halves: a copy of the values, which training waits for, and the file, which it doesn't.

Upstream: `save_weights` reads variables and writes them to disk one by one; the walk over a model's parts, which gives
each its place in the file, is private, and takes private stores only. For each part it makes a layer, an optimizer or a
loss anew to see which attributes they always have, since it keeps that under another name than it looks it up.
Here: one such store that keeps copies in memory; they go through upstream's own HDF5 store later, in any thread, so
that plain Keras loads the file with `load_weights`. The memory is kept from save to save, since taking new memory takes
ten times as long as copying. What attributes there are is remembered from walk to walk. Seen in Keras 3.15.1. Can go
when `save_weights` takes a store.
"""

from __future__ import annotations

import io
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.saving.saving_lib import H5IOStore, NpzIOStore, _save_state

from tfdist._compat.keras_saving import outside_scope

_KEPT_AS, _LOOKED_UP_AS = "saving_attr_skipset_", "saving_attr_skiplist_"
_KINDS = ("Operation", "Layer", "Functional", "Sequential", "Metric", "Optimizer", "Loss")
#: Attributes that the walk leaves out, by kind of part; upstream's state is a thread's own.
_left_out: dict[str, set[str]] = {}


class _Copies(dict[str, np.ndarray]):
    def __init__(self, kept: dict[str, np.ndarray]) -> None:
        super().__init__()
        self._kept = kept

    def __setitem__(self, name: str, value: Any) -> None:
        value = _without_copy(value)
        kept = self._kept.pop(name, None)
        if kept is None or (kept.shape, kept.dtype) != (value.shape, value.dtype):
            kept = np.empty_like(value)
        np.copyto(kept, value)
        super().__setitem__(name, kept)


def _without_copy(value: Any) -> np.ndarray:
    """What a variable holds, where that is memory of this machine's; to be used before it is assigned."""
    if isinstance(value, (keras.Variable, tf.Variable)):
        value = tf.convert_to_tensor(value.value if isinstance(value, keras.Variable) else value)
    return np.asarray(value)


class WeightCopies(NpzIOStore):
    """Values by place in the file and name; what Keras' walk over a model writes to.

    Args:
        kept: copies that were made before and are out of use, whose memory these take.
    """

    def __init__(self, kept: WeightCopies | None = None) -> None:
        super().__init__("", mode="w")
        self._kept: dict[str, dict[str, np.ndarray]] = {} if kept is None else kept.contents
        self._metadata: dict[str, Any] = {}

    def make(self, path: str, metadata: Any = None) -> dict[str, np.ndarray]:
        """A part of the model begins."""
        self._metadata[path] = metadata
        self.contents[path] = _Copies(self._kept.pop(path, {}))
        return self.contents[path]

    def to_h5(self) -> memoryview:
        """The file."""
        # Not straight to disk: HDF5 can't close a file on a full disk, and tries again when the process ends.
        file = io.BytesIO()
        store = H5IOStore(file, mode="w")
        for path, arrays in self.contents.items():
            entry = store.make(path, self._metadata[path])
            for name, array in arrays.items():
                entry[name] = array
        store.close()
        return file.getbuffer()


def copy_weights(model: Any, kept: WeightCopies | None = None) -> WeightCopies:
    """Copies of all that `model.save_weights` would write: weights, the optimizer, and what tfdist keeps beside it.

    Args:
        model: a built model.
        kept: see `WeightCopies`.
    """
    copies = WeightCopies(kept)
    walk(model, copies)
    return copies


def walk(model: Any, store: Any) -> None:
    """Give a store of Keras' kind all that `model.save_weights` would write."""

    def walk_outside() -> None:
        for kind, names in _left_out.items():
            global_state.set_global_attribute(f"{_LOOKED_UP_AS}{kind}", names)
        _save_state(model, weights_store=store, assets_store=None, inner_path="", visited_saveables=set())
        found = {kind: global_state.get_global_attribute(f"{_KEPT_AS}{kind}") for kind in _KINDS}
        _left_out.update({kind: names for kind, names in found.items() if names is not None})

    outside_scope(walk_outside)
