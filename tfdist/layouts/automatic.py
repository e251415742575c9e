"""Layouts that are chosen by names and shapes, and a plan that fits into each device's memory."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfdist import _compat
from tfdist._compat.keras_variable_creation import shapes_only
from tfdist.layouts.memory import MemoryReport, MemoryRow, part_bytes, size
from tfdist.layouts.mesh_axes import MeshAxes, Spec, mesh_axes
from tfdist.layouts.placement import ZERO_STAGES, Placements
from tfdist.layouts.ready_made import transformer
from tfdist.layouts.rules import LayoutRules
from tfdist.log import logger

# Fewer numbers than these cost more to exchange than to keep.
_SMALLEST = 1024


class AutomaticRules(LayoutRules):
    """Rules of `tfdist.layouts.transformer` where they are for a variable; else its largest dimension is split.

    Variables of fewer than 1,024 numbers are whole.

    Args:
        axes: of the mesh; each but the batch axis is used, the first one by the transformer's rules.
    """

    def __init__(self, axes: MeshAxes) -> None:
        super().__init__(None, axes)
        self._others = [name for name in axes.sizes if name != axes.batch_axis and axes.sizes[name] > 1]
        known = transformer(self._others[0]) if self._others else {}
        self._known = [(re.compile(key), rule) for key, rule in known.items()]

    def spec_for(self, path: str, shape: Sequence[int]) -> Spec:
        """How a variable is split; only over axes that divide it."""
        spec: Spec = (None,) * len(shape)
        if not self._others or math.prod(shape) < _SMALLEST:
            return spec
        rule: Any = next((rule for pattern, rule in self._known if pattern.fullmatch(path)), spec)
        wanted = rule(tuple(shape)) if callable(rule) else rule
        if len(wanted) == len(shape):
            spec = self._axes.divisible(wanted, shape)
        for axis in self._others:
            spec = self._axes.with_axis(axis, spec, shape)
        return spec

    def __str__(self) -> str:
        return "auto"


@dataclass(frozen=True)
class Plan:
    """How a model is to be split; `str` of it is a table of what it takes on each device.

    Args:
        mesh: sizes of the axes.
        zero_stage: 0, 1 or 3.
        batch_axis: the axis over which rows are split.
        report: bytes on each device.
    """

    mesh: Mapping[str, int]
    zero_stage: int
    batch_axis: str
    report: MemoryReport

    @property
    def options(self) -> dict[str, Any]:
        """Of HybridParallelStrategy."""
        return {
            "mesh": dict(self.mesh),
            "layout_map": "auto",
            "zero_stage": self.zero_stage,
            "batch_axis": self.batch_axis,
        }

    def __str__(self) -> str:
        chosen = f"mesh={dict(self.mesh)}, layout_map='auto', zero_stage={self.zero_stage}"
        return f"{chosen}: {size(self.report.total_bytes)} on each device, activations not counted\n{self.report}"


def auto(
    build_model: Callable[[], Any],
    mesh: Any,
    *,
    memory_limit_bytes: int | None = None,
    slots_per_parameter: int = 2,
    batch_axis: str = "batch",
) -> Plan:
    """Choose how to split a model, before any of its variables is made.

    Parameters are split by their names and shapes over the axes beside the batch axis; of the ZeRO stages the lowest is
    chosen, which exchanges least, with which parameters, gradients and slots fit.

    Args:
        build_model: returns a model that is built; it is called once, and no memory is taken for variables.
        mesh: as for HybridParallelStrategy.
        memory_limit_bytes: for parameters, gradients and slots on each device; None for no limit.
        slots_per_parameter: 2 for Adam, 1 for momentum, 0 for SGD; one more for averages or accumulation.
        batch_axis: the axis of the mesh over which rows are split.

    Raises:
        ValueError: nothing fits; it says how much is missing.

    Example:

        plan = tfdist.layouts.auto(build_model, {"batch": 2, "model": 2}, memory_limit_bytes=2**30)
        strategy = tfdist.HybridParallelStrategy(**plan.options)
    """
    axes = mesh_axes(mesh, batch_axis)
    _compat.install()
    with shapes_only():
        weights = list(build_model().weights)
    stages = [stage for stage in ZERO_STAGES if stage == 0 or axes.num_batch_parts > 1]
    plans = [
        Plan(axes.sizes, stage, batch_axis, _report(weights, axes, stage, slots_per_parameter)) for stage in stages
    ]
    for plan in plans:
        if memory_limit_bytes is None or plan.report.total_bytes <= memory_limit_bytes:
            logger.info("%s", plan)
            return plan
    raise ValueError(
        f"The model doesn't fit. Expected: parameters, gradients and slots of at most {size(memory_limit_bytes or 0)} "
        f"on each device. Received: {size(plans[-1].report.total_bytes)} on a mesh of {dict(axes.sizes)} with "
        f"zero_stage={plans[-1].zero_stage}. Use more devices, or an optimizer with fewer slots."
    )


def _report(weights: list[Any], axes: MeshAxes, stage: int, slots: int) -> MemoryReport:
    placements = Placements(axes, AutomaticRules(axes), stage)
    return MemoryReport(axes, tuple(_row(weight, axes, placements, slots) for weight in weights))


def _row(weight: Any, axes: MeshAxes, placements: Placements, slots: int) -> MemoryRow:
    shape, itemsize = tuple(weight.shape), tf.as_dtype(weight.dtype).size
    placement = placements.of_variable(weight.path, shape, is_parameter=weight.trainable)
    slot = part_bytes(axes, placements.of_slot(placement.kept, shape).kept, shape, itemsize) if weight.trainable else 0
    kept = part_bytes(axes, placement.kept, shape, itemsize)
    return MemoryRow(weight.path, shape, weight.dtype, placement.kept, placement.used, kept, slots * slot, slot)
