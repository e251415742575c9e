"""What a model's variables take on each device of a mesh."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdist._compat.tensorflow_dtensor_variables import MeshVariable
from tfdist.layouts.memory import MemoryReport, MemoryRow, part_bytes
from tfdist.layouts.mesh_axes import MeshAxes
from tfdist.layouts.placement import Placements
from tfdist.parallel.variables import spec_of


def memory_report(model: Any, axes: MeshAxes, placements: Placements) -> MemoryReport:
    """A report on a built model, its optimizer's variables among it as far as they are made.

    Args:
        model: made in the strategy's scope.
        axes: of the mesh.
        placements: of the strategy.
    """
    optimizer = [] if model.optimizer is None else list(model.optimizer.variables)
    slots = {id(one.value): _bytes(one.value, axes) for one in optimizer if isinstance(one.value, MeshVariable)}
    by_parameter: dict[int, int] = {}
    for one in optimizer:
        parameter = getattr(one.value, "slot_of", None)
        if parameter is not None:
            by_parameter[id(parameter)] = by_parameter.get(id(parameter), 0) + slots.pop(id(one.value))
    trainable = {id(one) for one in model.trainable_variables}
    rows = [
        _row(one, axes, placements, by_parameter.get(id(one.value), 0), has_gradient=id(one) in trainable)
        for one in model.weights
        if isinstance(one.value, MeshVariable)
    ]
    return MemoryReport(axes, tuple(rows), sum(slots.values()))


def _row(variable: Any, axes: MeshAxes, placements: Placements, slot_bytes: int, *, has_gradient: bool) -> MemoryRow:
    value, shape = variable.value, tuple(variable.shape)
    kept, itemsize = spec_of(value.layout), tf.as_dtype(variable.dtype).size
    gradient = part_bytes(axes, placements.of_slot(kept, shape).kept, shape, itemsize) if has_gradient else 0
    return MemoryRow(
        variable.path, shape, value.dtype.name, kept, spec_of(value.used), _bytes(value, axes), slot_bytes, gradient
    )


def _bytes(value: MeshVariable, axes: MeshAxes) -> int:
    return part_bytes(axes, spec_of(value.layout), value.shape.as_list(), value.dtype.size)
