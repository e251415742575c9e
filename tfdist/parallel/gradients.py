"""Gradients in the layouts in which optimizers keep their slots."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.experimental import dtensor

from tfdist._compat.tensorflow_dtensor_variables import MeshVariable
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
