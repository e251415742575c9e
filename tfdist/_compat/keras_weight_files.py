"""Keras' `.weights.h5` in two halves: a copy of the values, which training waits for, and the file, which it doesn't.

Upstream: `save_weights` reads variables and writes them to disk one by one; the walk over a model's parts, which gives
each its place in the file, is private, and takes private stores only. For each part it makes a layer, an optimizer or a
loss anew to see which attributes they always have, since it keeps that under another name than it looks it up.
Here: one such store that keeps copies in memory; they go through upstream's own HDF5 store later, in any thread, so
that plain Keras loads the file with `load_weights`. What attributes there are is remembered from walk to walk. Seen in
Keras 3.15.1. Can go when `save_weights` takes a store.
"""

from __future__ import annotations

import io
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.saving.saving_lib import H5IOStore, NpzIOStore, _save_state

from tfdist._compat.keras_saving import outside_scope

_KEPT_AS, _LOOKED_UP_AS = "saving_attr_skipset_", "saving_attr_skiplist_"
_KINDS = ("Operation", "Layer", "Functional", "Sequential", "Metric", "Optimizer", "Loss")
#: Attributes that the walk leaves out, by kind of part; upstream's state is a thread's own.
_left_out: dict[str, set[str]] = {}


class _Copies(dict[str, np.ndarray]):
    def __setitem__(self, name: str, value: Any) -> None:
        array = keras.ops.convert_to_numpy(value)
        # Of a variable this is a copy already, and a second one would take as long again.
        super().__setitem__(name, array if array.flags.owndata and array is not value else array.copy())


class WeightCopies(NpzIOStore):
    """Values by place in the file and name; what Keras' walk over a model writes to."""

    def __init__(self) -> None:
        super().__init__("", mode="w")
        self._metadata: dict[str, Any] = {}

    def make(self, path: str, metadata: Any = None) -> dict[str, np.ndarray]:
        """A part of the model begins."""
        self._metadata[path] = metadata
        self.contents[path] = _Copies()
        return self.contents[path]

    def to_h5(self) -> memoryview:
        """The file; the copies are gone afterwards, so that they and the file aren't in memory together."""
        # Not straight to disk: HDF5 can't close a file on a full disk, and tries again when the process ends.
        file = io.BytesIO()
        store = H5IOStore(file, mode="w")
        while self.contents:
            path = next(iter(self.contents))
            arrays = self.contents.pop(path)
            entry = store.make(path, self._metadata[path])
            for name, array in arrays.items():
                entry[name] = array
        store.close()
        return file.getbuffer()


def copy_weights(model: Any) -> WeightCopies:
    """Copies of all that `model.save_weights` would write: weights, the optimizer, and what tfdist keeps beside it."""
    copies = WeightCopies()

    def walk() -> None:
        for kind, names in _left_out.items():
            global_state.set_global_attribute(f"{_LOOKED_UP_AS}{kind}", names)
        _save_state(model, weights_store=copies, assets_store=None, inner_path="", visited_saveables=set())
        found = {kind: global_state.get_global_attribute(f"{_KEPT_AS}{kind}") for kind in _KINDS}
        _left_out.update({kind: names for kind, names in found.items() if names is not None})

    outside_scope(walk)
    return copies
