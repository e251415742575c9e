"""Gradients of several micro-batches, added up on the worker that computes them, for one push.

With w_k the weight of micro-batch k, its rows or what its only loss was divided by, the optimizer gets

    g = sum_k w_k g_k / sum_k w_k

which is the gradient of all their rows at once. All micro-batches of an optimizer step are in one execution, so a
worker that dies leaves none out. Gradients of embeddings are kept as the rows that came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfdist._compat.keras_worker_variables import named_variable
from tfdist.coordination.pushes import Pulled, Pushes

Update = Callable[[list[Any], list[Any]], None]


@dataclass(frozen=True)
class _Sum:
    """Of one variable's gradients; opened in every graph that uses it."""

    name: str
    dtype: tf.DType
    shape: tf.TensorShape
    is_sparse: bool

    def clear(self) -> None:
        shape = [0, *self.shape[1:]] if self.is_sparse else self.shape
        self._values().assign(tf.zeros(shape, self.dtype), read_value=False)
        if self.is_sparse:
            self._indices().assign(tf.zeros([0], tf.int64), read_value=False)

    def add(self, gradient: Any, weight: tf.Tensor) -> None:
        weight = tf.cast(weight, self.dtype)
        if not self.is_sparse:
            self._values().assign_add(tf.cast(gradient, self.dtype) * weight, read_value=False)
            return
        values, indices = self._values(), self._indices()
        rows = tf.cast(gradient.values, self.dtype) * weight
        values.assign(tf.concat([values.read_value(), rows], 0), read_value=False)
        added = tf.cast(gradient.indices, tf.int64)
        indices.assign(tf.concat([indices.read_value(), added], 0), read_value=False)

    def mean(self, weight: tf.Tensor, dtype: tf.DType) -> Any:
        values = tf.cast(self._values().read_value() / tf.cast(weight, self.dtype), dtype)
        if not self.is_sparse:
            return values
        return tf.IndexedSlices(values, self._indices().read_value(), tf.constant(self.shape.as_list(), tf.int64))

    def _values(self) -> Any:
        shape = [None, *self.shape[1:]] if self.is_sparse else self.shape
        return named_variable(shape, self.dtype, self.name)

    def _indices(self) -> Any:
        return named_variable([None], tf.int64, f"{self.name}/rows")


@dataclass(frozen=True)
class _Part:
    """What one optimizer is waiting for."""

    variables: list[Any]
    update: Update
    sums: list[_Sum | None]


class WorkerAccumulation:
    """The gradients that wait for an optimizer step; made while a worker's function is traced.

    Args:
        steps: Micro-batches to an optimizer step, K.
        name: Of its variables on the worker.
        dtype: Of the sums; None is that of the gradients, float32 for float16.
        drops: Whether what is left at the end of the data is dropped.
    """

    def __init__(self, steps: int, name: str, dtype: str | None = None, *, drops: bool = False) -> None:
        self.steps, self.drops = steps, drops
        self._name, self._dtype = name, dtype
        self._parts: list[_Part] = []

    def add(
        self,
        gradients: list[Any],
        variables: list[Any],
        update: Update,
        weight: tf.Tensor,
        divisor: Any,
        version: tf.Tensor,
    ) -> None:
        """Add one micro-batch's; called when Keras' step would apply them.

        Args:
            gradients: One a variable.
            variables: Keras variables.
            update: Applies them.
            weight: Of the gradients.
            divisor: What to add to the sum of weights.
            version: At which the variables were read.
        """
        number = len(self._parts)
        oldest = self._version()
        known = oldest.read_value()
        oldest.assign(tf.where(known < 0, version, known), read_value=False)
        pairs = zip(gradients, variables, strict=True)
        sums = [self._sum(f"{number}/{i}", gradient, variable) for i, (gradient, variable) in enumerate(pairs)]
        for one, gradient in zip(sums, gradients, strict=True):
            if one is not None:
                one.add(gradient, weight)
        self._weight(number).assign_add(tf.cast(divisor, tf.float64), read_value=False)
        self._parts.append(_Part(variables, update, sums))

    def _sum(self, name: str, gradient: Any, variable: Any) -> _Sum | None:
        if gradient is None:
            return None
        dtype = tf.as_dtype(self._dtype or (tf.float32 if gradient.dtype == tf.float16 else gradient.dtype))
        is_sparse = isinstance(gradient, tf.IndexedSlices)
        return _Sum(f"{self._name}/{name}", dtype, tf.TensorShape(variable.shape), is_sparse)

    def _weight(self, number: int) -> Any:
        return named_variable([], tf.float64, f"{self._name}/{number}/weight")

    def _version(self) -> Any:
        return named_variable([], tf.int64, f"{self._name}/version")

    def clear(self) -> None:
        """Begin anew; what a worker that was interrupted has left is forgotten."""
        self._version().assign(-1, read_value=False)
        for number, part in enumerate(self._parts):
            self._weight(number).assign(0.0, read_value=False)
            for one in part.sums:
                if one is not None:
                    one.clear()

    def apply(self, pushes: Pushes) -> None:
        """An optimizer step with the mean of all that was added; in replica context."""
        version = self._version().read_value()
        for number, part in enumerate(self._parts):
            weight = self._weight(number).read_value()
            pairs = zip(part.sums, part.variables, strict=True)
            means = [None if one is None else one.mean(weight, tf.as_dtype(v.dtype)) for one, v in pairs]
            pushes.push(means, part.variables, Pulled(version, [None] * len(means)), weight, part.update)
        self.clear()
