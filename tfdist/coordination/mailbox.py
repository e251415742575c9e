"""Gradients that wait on the ps for an optimizer step of several workers, each under the number of its execution.

A worker that dies and whose execution is made again by another leaves nothing twice: under one number there is one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Envelope:
    """What lies on one ps of an execution's gradients: their places among the variables, types and shapes."""

    device: str
    name: str
    places: tuple[int, ...]
    is_sparse: tuple[bool, ...]
    dtypes: tuple[tf.DType, ...]


class Mailbox:
    """Of one call of the optimizer in a step; made while a worker's function is traced.

    Args:
        name: Of it, the same in all graphs. Gradients of other types lie apart.
        gradients, variables: Tell what it's going to hold.
    """

    def __init__(self, name: str, gradients: list[Any], variables: list[Any]) -> None:
        self.variables = variables
        places: dict[str, list[int]] = {}
        for place, (gradient, variable) in enumerate(zip(gradients, variables, strict=True)):
            if gradient is not None:
                places.setdefault(_device(variable), []).append(place)
        self._envelopes = [
            self._envelope(device, f"{name}/{number}", gradients, of_device)
            for number, (device, of_device) in enumerate(places.items())
        ]

    def _envelope(self, device: str, name: str, gradients: list[Any], places: list[int]) -> Envelope:
        is_sparse = tuple(isinstance(gradients[place], tf.IndexedSlices) for place in places)
        dtypes = [dtype for place in places for dtype in _dtypes(gradients[place])]
        kinds = zlib.crc32("-".join(dtype.name for dtype in dtypes).encode())
        return Envelope(device, f"{name}/{kinds:08x}", tuple(places), is_sparse, (tf.float64, *dtypes))

    def put(self, number: tf.Tensor, gradients: list[Any], weight: tf.Tensor) -> None:
        """On a worker: leave gradients, times their weight."""
        for envelope in self._envelopes:
            values = [tf.cast(weight, tf.float64)]
            for place, is_sparse in zip(envelope.places, envelope.is_sparse, strict=True):
                gradient = gradients[place]
                dense = gradient.values if is_sparse else gradient
                values.append(dense * tf.cast(weight, dense.dtype))
                values += [gradient.indices] if is_sparse else []
            with tf.device(envelope.device):
                tf.raw_ops.MapStage(
                    key=number,
                    indices=list(range(len(values))),
                    values=values,
                    dtypes=list(envelope.dtypes),
                    shared_name=envelope.name,
                )

    def take_mean(self, numbers: list[tf.Tensor]) -> list[Any]:
        """On the chief: the weighted mean of several executions' gradients; they are gone then."""
        means: list[Any] = [None] * len(self.variables)
        for envelope in self._envelopes:
            with tf.device(envelope.device):
                taken = [self._take(envelope, number) for number in numbers]
                total = tf.add_n([values[0] for values in taken])
                columns = iter(zip(*(values[1:] for values in taken), strict=True))
                for place, is_sparse in zip(envelope.places, envelope.is_sparse, strict=True):
                    means[place] = self._mean(place, columns, total, is_sparse=is_sparse)
        return means

    def _mean(self, place: int, columns: Any, total: tf.Tensor, *, is_sparse: bool) -> Any:
        shape = tf.TensorShape(self.variables[place].shape)
        parts = next(columns)
        total = tf.cast(total, parts[0].dtype)
        if not is_sparse:
            return tf.ensure_shape(tf.add_n(parts) / total, shape)
        rows = tf.ensure_shape(tf.concat(parts, 0) / total, [None, *shape[1:]])
        indices = tf.ensure_shape(tf.concat(next(columns), 0), [None])
        return tf.IndexedSlices(rows, indices, tf.constant(shape.as_list(), indices.dtype))

    def drop(self, number: tf.Tensor) -> None:
        """On the chief: forget an execution's gradients."""
        for envelope in self._envelopes:
            with tf.device(envelope.device):
                self._take(envelope, number)

    def clear(self) -> None:
        """On the chief: forget all."""
        for envelope in self._envelopes:
            with tf.device(envelope.device):
                tf.raw_ops.MapClear(dtypes=list(envelope.dtypes), shared_name=envelope.name)

    def _take(self, envelope: Envelope, number: tf.Tensor) -> list[tf.Tensor]:
        taken: list[tf.Tensor] = tf.raw_ops.MapUnstage(
            key=number,
            indices=list(range(len(envelope.dtypes))),
            dtypes=list(envelope.dtypes),
            shared_name=envelope.name,
        )
        return taken


def _device(variable: Any) -> str:
    value = variable.value
    parts = getattr(value, "variables", None)
    return (parts[0] if parts else value).device


def _dtypes(gradient: Any) -> list[tf.DType]:
    return (
        [gradient.values.dtype, gradient.indices.dtype] if isinstance(gradient, tf.IndexedSlices) else [gradient.dtype]
    )
