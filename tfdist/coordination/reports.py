"""What a worker reports of an execution: numbers of any dtype and shape in one vector, so in one message."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class ReportFormat:
    """The numbers in a report, learnt when the worker's function is traced.

    float64 holds every float and every integer below 2^53 exactly.
    """

    def __init__(self) -> None:
        self._specs: list[tf.TensorSpec] = []

    def pack(self, values: list[Any]) -> tf.Tensor:
        """A vector of all values.

        Raises:
            ValueError: a value's shape depends on the data.
        """
        tensors = [tf.convert_to_tensor(value) for value in values]
        for tensor in tensors:
            if not tensor.shape.is_fully_defined():
                raise ValueError(
                    "Logs are numbers. Expected: scalars or fixed shapes in what train_step or test_step returns. "
                    f"Received: shape={tensor.shape}. Return a mean, or the result of a metric."
                )
        self._specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]
        return tf.concat([tf.reshape(tf.cast(tensor, tf.float64), [-1]) for tensor in tensors] or [[]], 0)

    def unpack(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """The values, as they were."""
        sizes = [spec.shape.num_elements() for spec in self._specs]
        parts = tf.split(vector, sizes) if sizes else []
        return [
            tf.reshape(tf.cast(part, spec.dtype), spec.shape) for part, spec in zip(parts, self._specs, strict=True)
        ]
