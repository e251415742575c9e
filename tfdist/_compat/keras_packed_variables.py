"""Small variables of a step travel together: one message from each ps, and one back with their gradients.

Upstream: each variable that a step reads, and each gradient, is a message of its own; for small ones the message costs
more than what's in it.
Here: what a step reads of a ps is fetched at its beginning, packed into one vector for each dtype; gradients
go back likewise. Large variables, those in shards and lookups of rows travel alone.
Seen in TensorFlow 2.21, Keras 3.15.1. Can go when TensorFlow packs what goes between two devices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute import ps_values
from tensorflow.python.eager import record
from tensorflow.python.framework import ops
from tensorflow.python.ops import resource_variable_ops

from tfdist._compat.keras_worker_variables import MovingAverage, OwnVariable, standing_for

# Of a variable. Packing copies it twice, at 5 GB/s; a message takes 0.1 ms on this machine's loopback.
_MOST_BYTES = 256 << 10


class Fetch:
    """The variables that a step reads; made while the step is traced, at its beginning.

    Args:
        read: Keras variables that the step reads and may differentiate by.
        moving: Keras variables to which the step adds its changes.
        whole: Whether variables that are too large to be packed are fetched here too, each alone.
    """

    def __init__(self, read: list[Any], moving: list[Any], *, whole: bool = False) -> None:
        packed = [one for one in read if _is_small(one._value)]
        values = _fetched([one._value for one in (*packed, *moving)])
        self._variables = [*packed, *moving]
        self._own = [one._value for one in self._variables]
        self._fetched = [_Fetched(one._value, value) for one, value in zip(packed, values[: len(packed)], strict=True)]
        moved = [MovingAverage(one._value, value) for one, value in zip(moving, values[len(packed) :], strict=True)]
        self._standing = [*self._fetched, *moved]

        large = [one for one in read if whole and _is_whole(one._value) and not _is_small(one._value)]
        pairs = [*zip(packed, values, strict=False), *((one, one._value.read_value()) for one in large)]
        self._values = {id(one): value for one, value in pairs}

    def values_of(self, variables: list[Any]) -> list[tf.Tensor | None]:
        """What was fetched of Keras variables; None for those that were not."""
        return [self._values.get(id(variable)) for variable in variables]

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """The variables have the values that were fetched in here."""
        with standing_for(self._variables, self._standing):
            yield

    @contextlib.contextmanager
    def updating(self) -> Iterator[None]:
        """The variables are themselves in here, and are read anew from then on."""
        for one in self._fetched:
            one.is_current = False
        count = len(self._fetched)
        with standing_for(self._variables[:count], self._own[:count]):
            yield


class _Fetched:
    """A variable, and its value at the step's beginning."""

    def __init__(self, variable: Any, value: tf.Tensor) -> None:
        self._variable, self._fetched, self._graph = variable, value, ops.get_default_graph()
        self.is_current = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._variable, name)

    def read_value(self) -> tf.Tensor:
        # In a graph inside the step's, upstream's own way of differentiating a read is needed.
        if not self.is_current or ops.get_default_graph() is not self._graph:
            return self._variable.read_value()
        value = tf.identity(self._fetched)
        variable = self._variable.get() if isinstance(self._variable, ps_values.CachingVariable) else self._variable
        resource_variable_ops.variable_accessed(variable)
        record.record_operation(
            "ReadVariableOp", [value], [variable.handle], backward_function=_as_it_is, forward_function=_as_it_is
        )
        return value

    value = read_value

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        value = self.read_value()
        return value if dtype is None else tf.cast(value, dtype)

    def assign(self, *args: Any, **kwargs: Any) -> Any:
        self.is_current = False
        return self._variable.assign(*args, **kwargs)

    def assign_add(self, *args: Any, **kwargs: Any) -> Any:
        self.is_current = False
        return self._variable.assign_add(*args, **kwargs)

    def assign_sub(self, *args: Any, **kwargs: Any) -> Any:
        self.is_current = False
        return self._variable.assign_sub(*args, **kwargs)


def _as_it_is(gradient: Any) -> list[Any]:
    return [gradient]


def _is_whole(variable: Any) -> bool:
    return isinstance(variable, (ps_values.CachingVariable, resource_variable_ops.BaseResourceVariable))


def _travels(variable: Any) -> bool:
    return _is_small(variable) and not isinstance(variable, OwnVariable)


def _is_small(variable: Any) -> bool:
    return _is_whole(variable) and variable.shape.num_elements() * variable.dtype.size <= _MOST_BYTES


def read_whole(variables: list[Any]) -> list[tf.Tensor]:
    """Values of variables on ps, on the worker."""
    small = [i for i, one in enumerate(variables) if _is_small(one)]
    values = dict(zip(small, _fetched([variables[i] for i in small]), strict=True))
    return [values[i] if i in values else one.read_value() for i, one in enumerate(variables)]


def _fetched(variables: list[Any]) -> list[tf.Tensor]:
    """Values of variables, on the worker."""
    values: dict[int, tf.Tensor] = {}
    for (device, _), places in _by_place(variables).items():
        with tf.device(device):
            flat = tf.concat([tf.reshape(variables[i].read_value(), [-1]) for i in places], 0)
        values |= dict(zip(places, _parts(flat, [variables[i].shape for i in places]), strict=True))
    return [values[i] for i in range(len(variables))]


def pushed(gradients_and_variables: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Gradients where their variables are."""
    pairs = list(gradients_and_variables)
    small = [i for i, (gradient, one) in enumerate(pairs) if isinstance(gradient, tf.Tensor) and _travels(one)]
    for (device, _), places in _by_place([pairs[i][1] for i in small]).items():
        chosen = [small[place] for place in places]
        flat = tf.concat([tf.reshape(pairs[i][0], [-1]) for i in chosen], 0)
        with tf.device(device):
            parts = _parts(tf.identity(flat), [pairs[i][1].shape for i in chosen])
        for i, part in zip(chosen, parts, strict=True):
            pairs[i] = part, pairs[i][1]
    return pairs


def _by_place(variables: list[Any]) -> dict[tuple[str, tf.DType], list[int]]:
    """Indices of the variables of each device and dtype."""
    places: dict[tuple[str, tf.DType], list[int]] = {}
    for i, variable in enumerate(variables):
        places.setdefault((variable.device, variable.dtype), []).append(i)
    return places


def _parts(flat: tf.Tensor, shapes: list[Any]) -> list[tf.Tensor]:
    sizes = [shape.num_elements() for shape in shapes]
    return [tf.reshape(part, shape) for part, shape in zip(tf.split(flat, sizes), shapes, strict=True)]
