"""One stage's forward pass on its device, whose backward pass is on the same device.

A tape differentiates under whatever device scope is open when it is asked, so a stage has a tape of its own, which is
asked under the stage's device; the tapes around it are told of one operation with the stage's tensors and variables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfdist._compat.tensorflow_recorded_stages import is_recording, is_watched, record_stage
from tfdist.strategies.stages.schedule import Timetable


def run_unit(
    compute: Callable[[Any], Any],
    inputs: Any,
    *,
    variables: Sequence[tf.Variable],
    stage: int,
    device: str,
    timetable: Timetable | None,
) -> Any:
    """Compute a stage.

    Args:
        compute: the stage, from `inputs` to outputs.
        inputs: any nesting of tensors, ragged and sparse ones included; other values are passed on.
        variables: trainable ones that `compute` may use.
        stage: its index.
        device: its device's whole name.
        timetable: where its units are noted; None where they run as data comes.

    Returns:
        What `compute` returned, as tensors that tapes around it differentiate by one operation.
    """
    given = tf.nest.flatten(inputs, expand_composites=True)
    recorded = is_recording()
    wanted = [i for i, x in enumerate(given) if recorded and _is_floating(x) and is_watched(x)]
    with tf.device(device):
        local = _own(given) if timetable is None else timetable.begin("forward", stage, given)
        packed = tf.nest.pack_sequence_as(inputs, local, expand_composites=True)
        with tf.GradientTape(persistent=True) if recorded else _NoTape() as tape:
            tape.watch([local[i] for i in wanted])
            made = compute(packed)
        results = tf.nest.flatten(made, expand_composites=True)
        # New tensors: what records a tensor last decides its gradient.
        handed = [tf.identity(x) if tf.is_tensor(x) else x for x in results]
        if timetable is not None:
            handed = timetable.end("forward", stage, handed)
    if recorded:
        targets = [i for i, x in enumerate(results) if _is_floating(x)]
        backward = _Backward(
            tape, [results[i] for i in targets], [*(local[i] for i in wanted), *variables], stage, device, timetable
        )
        record_stage([handed[i] for i in targets], [given[i] for i in wanted], list(variables), backward)
    return tf.nest.pack_sequence_as(made, handed, expand_composites=True)


class _Backward:
    """The gradient function of one unit."""

    def __init__(
        self, tape: tf.GradientTape, targets: list[Any], sources: list[Any], stage: int, device: str, timetable: Any
    ) -> None:
        self._tape, self._targets, self._sources = tape, targets, sources
        self._stage, self._device, self._timetable = stage, device, timetable

    def __call__(self, *upstream: Any) -> list[Any]:
        with tf.device(self._device):
            dense = [None if one is None else tf.convert_to_tensor(one) for one in upstream]
            if self._timetable is not None:
                dense = self._timetable.begin("backward", self._stage, dense)
            gradients = self._tape.gradient(self._targets, self._sources, output_gradients=dense)
            if self._timetable is not None:
                gradients = self._timetable.end("backward", self._stage, gradients)
        return list(gradients)


def _own(values: list[Any]) -> list[Any]:
    """Tensors of the unit's own, which its tape alone watches."""
    return [tf.identity(x) if tf.is_tensor(x) else x for x in values]


def _is_floating(value: Any) -> bool:
    return tf.is_tensor(value) and (value.dtype.is_floating or value.dtype.is_complex)


class _NoTape:
    """In place of a tape where nothing is differentiated."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def watch(self, tensors: list[Any]) -> None:
        """Nothing."""
