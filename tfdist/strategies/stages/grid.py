"""The devices of a pipeline, or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfdist._compat.tensorflow_staged_devices import full_name
from tfdist._compat.tensorflow_staged_replicas import replica_index


class Grid:
    """Devices by pipeline and stage.

    Args:
        devices: a device for each stage, or a list of them for each pipeline.

    Raises:
        TypeError, ValueError: they are no devices of this process, or a stage has none of its own.
    """

    def __init__(self, devices: Sequence[Any]) -> None:
        rows = _rows(devices)
        known = {full_name(one.name) for one in tf.config.list_logical_devices()}
        for name in (name for row in rows for name in row):
            if _full(name, devices) not in known:
                raise ValueError(
                    f"Expected: devices that TensorFlow has, {', '.join(sorted(known))}. Received: {name!r} in "
                    f"devices={devices!r}. tf.config.set_logical_device_configuration cuts one device into several."
                )
        self._rows = [[full_name(name) for name in row] for row in rows]
        flat = [name for row in self._rows for name in row]
        if len(set(flat)) < len(flat):
            raise ValueError(f"Expected: a device of its own for each stage. Received: devices={devices!r}.")
        self.host = full_name("CPU:0")
        self._ranks = {name: stage for row in self._rows for stage, name in enumerate(row)}

    @property
    def stages(self) -> int:
        """How many a pipeline has."""
        return len(self._rows[0])

    @property
    def pipelines(self) -> int:
        """How many there are."""
        return len(self._rows)

    def device(self, stage: int) -> str:
        """Whole name of a stage's device, in the pipeline that asks; in the first one where none does."""
        return self._rows[replica_index()][stage]

    def devices(self, stage: int) -> list[str]:
        """Whole names of a stage's devices, one a pipeline."""
        return [row[stage] for row in self._rows]

    def place(self, inputs: Sequence[tuple[tf.TensorShape, str]], is_backward: bool) -> str:
        """Where an operation outside of stages is computed: with its inputs, the latest stage's if they are apart.

        Scalars go where they are needed, so they decide only where there is nothing else. What has no inputs on a
        stage's device, such as what the train step does with the batch before the model has it, is computed on the
        host; but where the model's outputs are if it is on the way from the loss back to them.

        Args:
            inputs: shape and device of each, "" where that isn't known.
            is_backward: whether a tape has made it.
        """
        ranked = [(shape.rank != 0, self._ranks.get(device, -1), device) for shape, device in inputs if device]
        _, stage, device = max(ranked, default=(False, -1, self.host))
        return self.device(self.stages - 1) if stage < 0 and is_backward else device


def _rows(devices: Sequence[Any]) -> list[list[str]]:
    if isinstance(devices, str) or not isinstance(devices, Sequence) or not devices:
        raise TypeError(
            f'Expected: a device for each stage, such as devices=["GPU:0", "GPU:1"]. Received: devices={devices!r}.'
        )
    several = all(isinstance(row, Sequence) and not isinstance(row, str) for row in devices)
    rows = [list(row) for row in devices] if several else [list(devices)]
    if (
        len({len(row) for row in rows}) > 1
        or len(rows[0]) < 2
        or not all(isinstance(one, str) for row in rows for one in row)
    ):
        raise ValueError(
            "Expected: names of at least two devices, one for each stage, or lists of equal lengths, one for each "
            f"pipeline. Received: devices={devices!r}. With one device there is nothing to cut: OneDeviceStrategy."
        )
    return rows


def _full(name: str, devices: Any) -> str:
    try:
        return full_name(name)
    except ValueError as error:
        raise ValueError(f"Expected: devices such as 'GPU:0'. Received: {name!r} in devices={devices!r}.") from error
