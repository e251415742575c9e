"""Gradients in the layouts in which optimizers keep their slots."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from tensorflow.experimental import dtensor

from tfdist._compat.tensorflow_dtensor_variables import MeshVariable, dense_of
from tfdist.layouts.placement import Placements
from tfdist.parallel.transfer import layout_of
from tfdist.parallel.variables import spec_of


def in_layouts_of(gradients: list[Any], variables: list[Any], placements: Placements) -> list[Any]:
    """Gradients as the slots of their variables are laid out; rows and Nones as they are.

    What an optimizer computes of a gradient then has that layout too, so each device computes its part only.
    """
    return [_laid_out(gradient, variable, placements) for gradient, variable in zip(gradients, variables, strict=True)]


def _laid_out(gradient: Any, variable: Any, placements: Placements) -> Any:
    variable = getattr(variable, "value", variable)
    if gradient is None or not isinstance(variable, MeshVariable):
        return gradient
    if isinstance(gradient, tf.IndexedSlices):
        # Not made dense, since Keras' optimizers take each row by itself: Adam squares them before it adds them up.
        return tf.IndexedSlices(gradient.values, gradient.indices, tf.constant(variable.shape.as_list(), tf.int32))
    if tf.executing_eagerly() and not dtensor.is_dtensor(gradient):
        return gradient
    slot = placements.of_slot(spec_of(variable.layout), variable.shape.as_list())
    # In two steps, since DTensor would compute the gradient in the slot's layout, which convolutions can't.
    return dtensor.relayout(dtensor.relayout(gradient, variable.used), layout_of(variable.layout.mesh, slot.kept))


def dense(gradients: list[Any], variables: list[Any], optimizer: Any) -> list[Any]:
    """Gradients that can be added up in the layouts of slots: tables in place of rows.

    Raises:
        ValueError: the optimizer would make another step of a table than of its rows.
    """
    rows = [one for one in zip(gradients, variables, strict=True) if isinstance(one[0], tf.IndexedSlices)]
    if rows and not _is_linear(optimizer):
        raise ValueError(
            "Expected: dense gradients, or SGD without clipping, where micro-batches are added up on a mesh. Received: "
            f"{type(optimizer).__name__}, and rows for {rows[0][1].path!r}. It squares each row as it comes, which a "
            "sum of rows can't give. Take the optimizer's own gradient_accumulation_steps, which adds up tables as "
            "Keras does on one device."
        )
    return [
        dense_of(one, variable.shape) if isinstance(one, tf.IndexedSlices) else one
        for one, variable in zip(gradients, variables, strict=True)
    ]


def _is_linear(optimizer: Any) -> bool:
    """Whether the sum of a gradient's rows makes the same step as the rows, one after another."""
    clips = (optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue)
    return type(optimizer) is keras.optimizers.SGD and not any(clips)
