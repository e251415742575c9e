"""Layers that DTensor can't split as it likes, and in which layout they compute instead.

DTensor decides for each operation how its result is split, and fails where an operation can't be split like its
inputs are: a pooling of split channels, say. Around such layers inputs and weights are brought into layouts that work.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from tensorflow.experimental import dtensor

from tfdist._compat import hooks
from tfdist._compat.tensorflow_dtensor_variables import MeshVariable
from tfdist.layouts.treatments import Treatment, treatment_of
from tfdist.log import logger
from tfdist.parallel.batches import Batches
from tfdist.parallel.transfer import replicated

_MARK = "_tfdist_treatment"


def treat_layers(layers: list[Any], batches: Batches) -> None:
    """Let layers compute in layouts that work; those that can't are refused.

    Args:
        layers: of a built model.
        batches: of the strategy.

    Raises:
        ValueError: DTensor can't compute a layer in any layout.
    """
    gathered = []
    for layer in layers:
        treatment = treatment_of(layer)
        treatment.refuse(layer)
        split = [v for v in layer.variables if isinstance(v.value, MeshVariable) and _is_split(v.value.layout)]
        for variable in split if treatment.whole_weights else []:
            variable.value.used = replicated(variable.value.layout.mesh, variable.value.shape.rank)
            gathered.append(variable.path)
        for variable in split if treatment.weights_as_kept else []:
            variable.value.used = variable.value.layout
        if treatment.inputs != "any" and _MARK not in vars(layer):
            _wrap(layer, treatment, batches)
    if gathered:
        logger.warning(
            "DTensor can't compute with parts of %s: they are kept in parts, and gathered on every device while their "
            "layers compute.",
            ", ".join(gathered),
        )


def _is_split(layout: dtensor.Layout) -> bool:
    return not layout.is_fully_replicated()


def _wrap(layer: Any, treatment: Treatment, batches: Batches) -> None:
    call = layer.call

    @functools.wraps(call)
    def laid_out_call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = _all_laid_out((args, kwargs), batches, by_rows=treatment.inputs == "rows")
        with _unrolled(layer) if treatment.unrolled else contextlib.nullcontext():
            return _all_laid_out(call(*args, **kwargs), batches, by_rows=True)

    # On this one instance, and not by `setattr`, which Keras' tracking of attributes would see.
    vars(layer)["call"], vars(layer)[_MARK] = laid_out_call, treatment


@contextlib.contextmanager
def _unrolled(layer: Any) -> Iterator[None]:
    """As if the layer had been made with `unroll=True`, which its configuration doesn't show."""
    asked = layer.unroll
    vars(layer)["unroll"] = True
    try:
        yield
    finally:
        vars(layer)["unroll"] = asked


def _all_laid_out(values: Any, batches: Batches, *, by_rows: bool) -> Any:
    return keras.tree.map_structure(lambda value: _laid_out(value, batches, by_rows=by_rows), values)


def _laid_out(value: Any, batches: Batches, *, by_rows: bool) -> Any:
    if not isinstance(value, tf.Tensor) or value.dtype in (tf.variant, tf.string) or value.shape.rank is None:
        return value
    if hooks.active_strategy() is None or tf.distribute.in_cross_replica_context():
        return value  # while the model is built, or is called outside of the strategy
    return batches.laid_out(value, by_rows=by_rows)
