"""What each device of a pipeline holds, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfdist._compat.keras_optimizers import leaves_of, slots_of
from tfdist._compat.keras_staged_models import LayerCall
from tfdist._compat.keras_variable_devices import device_of
from tfdist.strategies.stages.grid import Grid
from tfdist.strategies.stages.plan import Stage, size_bytes
from tfdist.strategies.stages.schedule import Unit, most_in_flight
from tfdist.tables import aligned

_HEADINGS = ("stage", "device", "layers", "parameters", "slots", "activations", "in flight")


def summary(
    stages: Sequence[Stage],
    model: Any,
    grid: Grid,
    order: Callable[[int, int, int], list[Unit]],
    *,
    micro_batches: int,
    accumulates: bool,
    batch_size: int | None,
) -> str:
    """The table, in bytes.

    Args:
        stages: of the model.
        model: of which they are, with its optimizer, if it has one, built.
        grid: its devices.
        order: its schedule.
        micro_batches: of a batch.
        accumulates: whether gradients are added up beside the variables.
        batch_size: rows of a batch; None counts activations of one row in each micro-batch.
    """
    rows = 1 if batch_size is None else -(-batch_size // (grid.pipelines * micro_batches))
    lines = []
    for stage in stages:
        in_flight = most_in_flight(order(stage.index, len(stages), micro_batches))
        values = [
            size_bytes(stage.own_variables),
            _slot_bytes(stage, model.optimizer, accumulates),
            in_flight * rows * sum(map(_row_bytes, stage.calls)),
        ]
        device = ", ".join(map(_short, grid.devices(stage.index)))
        names = stage.layer_names
        shown = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
        lines.append([str(stage.index), device, shown, *(f"{value:,}" for value in values), str(in_flight)])
    return "\n".join(aligned([list(_HEADINGS), *lines], right=(0, 3, 4, 5, 6)))


def _slot_bytes(stage: Stage, optimizer: Any, accumulates: bool) -> int:
    """Of the optimizer's variables beside the stage's, and of what adds up its gradients."""
    if optimizer is None:
        return 0
    trainable = [one for one in stage.own_variables if one.trainable]
    here = {device_of(one) for one in trainable}
    slots = [slot for leaf in leaves_of(optimizer) for slot in slots_of(leaf) if tuple(slot.shape) != ()]
    beside = [slot for slot in slots if device_of(slot) in here]
    return size_bytes(beside) + accumulates * size_bytes(trainable)


def _row_bytes(call: LayerCall) -> int:
    """What one row's outputs of a call take; what isn't known counts as 1."""
    return sum(
        tf.as_dtype(dtype).size * int(tf.TensorShape([size or 1 for size in shape[1:]]).num_elements() or 1)
        for shape, dtype in call.output_specs
    )


def _short(device: str) -> str:
    spec = tf.DeviceSpec.from_string(device)
    place = f"{spec.device_type}:{spec.device_index}"
    return place if spec.job in (None, "localhost") else f"{spec.job}:{spec.task} {place}"
