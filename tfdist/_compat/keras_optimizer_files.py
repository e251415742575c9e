"""Optimizers with Keras' own accumulation are saved as plain Keras saves them, and read from its files.

Upstream: with `gradient_accumulation_steps=K` an optimizer has an accumulator for each variable among its variables,
and its `_iterations` counts micro-batches; files hold both, by position.
Here: the optimizer has no such accumulators and counts optimizer steps (see keras_optimizers.py). Files are written
with zeros in the accumulators' places and K times the steps, so that plain Keras goes on after the last optimizer
step; what tfdist has accumulated since then is kept beside it (gradients/accumulators.py).
Seen in Keras 3.15.1. Can go when Keras' accumulation is exact.

An optimizer gives arrays; to a store that takes variables it gives these, see keras_weight_places.py.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer

from tfdist._compat.keras_optimizers import counts_updates, parts_of
from tfdist._compat.keras_weight_places import VariableEntry
from tfdist.log import logger

_save, _load = BaseOptimizer.save_own_variables, BaseOptimizer.load_own_variables


def install() -> None:
    """Replace the methods that files are written and read with."""
    BaseOptimizer.save_own_variables = save_own_variables
    BaseOptimizer.load_own_variables = load_own_variables


@functools.wraps(_save)
def save_own_variables(self: Any, store: Any) -> None:
    """Upstream's, in upstream's layout."""
    if isinstance(store, VariableEntry):
        store.update({str(place): variable for place, variable in enumerate(self.variables)})
        return None
    if not _accumulating_parts(self):
        return _save(self, store)
    factors = {id(part._iterations): part.gradient_accumulation_steps for part in _accumulating_parts(self)}
    for place, entry in enumerate(_upstream_layout(self)):
        if isinstance(entry, tf.TensorSpec):
            store[str(place)] = tf.zeros(entry.shape, entry.dtype).numpy()
        else:
            store[str(place)] = entry.numpy() * factors.get(id(entry), 1)
    return None


@functools.wraps(_load)
def load_own_variables(self: Any, store: Any) -> None:
    """Upstream's, from upstream's layout; from one without accumulators too."""
    layout = _upstream_layout(self) if _accumulating_parts(self) else []
    if not layout or len(store.keys()) != len(layout):
        return _load(self, store)
    steps = {id(part._iterations): part.gradient_accumulation_steps for part in _accumulating_parts(self)}
    for place, entry in enumerate(layout):
        if isinstance(entry, tf.TensorSpec):
            continue
        value = np.asarray(store[str(place)])
        if id(entry) not in steps:
            entry.assign(value)
            continue
        entry.assign(value // steps[id(entry)])
        if value % steps[id(entry)]:
            logger.warning(
                "the file was saved by plain Keras in the middle of accumulating; %d micro-batches are lost",
                value % steps[id(entry)],
            )
    return None


def _accumulating_parts(optimizer: Any) -> list[Any]:
    """The optimizers, itself included, whose accumulation tfdist has taken over."""
    parts = [optimizer, *parts_of(optimizer)]
    return [part for part in parts if part.built and part.gradient_accumulation_steps and counts_updates(part)]


def _upstream_layout(optimizer: Any) -> list[Any]:
    """The optimizer's variables, with a specification wherever upstream has an accumulator."""
    layout = list(optimizer.variables)
    for part in _accumulating_parts(optimizer):
        averages = [average for average in getattr(part, "_model_variables_moving_average", []) if average is not None]
        before = {id(v) for v in (part._iterations, part._learning_rate, *averages) if isinstance(v, keras.Variable)}
        place = 1 + max(index for index, variable in enumerate(layout) if id(variable) in before)
        layout[place:place] = [tf.TensorSpec(v.shape, v.dtype) for v in part._trainable_variables]
    return layout
