"""Keras variables as a worker of a parameter-server job sees them while its function is traced.

Upstream: a metric updates its variables where they are, on another machine; `assign_add` reads, adds and writes, so of
two workers that count at the same time one is lost; BatchNormalization writes its moving statistics likewise.
Here: metrics have variables of the worker's own; `assign_add` adds in place; moving averages are read once, and what a
step changes of them is added in place.
Seen in TensorFlow 2.21, Keras 3.15.1. Can go when Keras' variables add in place.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from keras.src.backend.common import KerasVariable
from tensorflow.python.ops import resource_variable_ops

from tfdist._compat import hooks
from tfdist._compat.tensorflow_worker_tables import graph_of_worker

#: By graph and name.
_named: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()

_in_place = {name: getattr(KerasVariable, name) for name in ("assign_add", "assign_sub")}


def install() -> None:
    """Replace `KerasVariable.assign_add` and `assign_sub`."""
    KerasVariable.assign_add = assign_add
    KerasVariable.assign_sub = assign_sub


def assign_add(self: Any, value: Any) -> Any:
    """Upstream's; in place where other steps change the variable at the same time."""
    return _change(self, value, "assign_add")


def assign_sub(self: Any, value: Any) -> Any:
    """As `assign_add`."""
    return _change(self, value, "assign_sub")


def _change(variable: Any, value: Any, name: str) -> Any:
    step = hooks.current_step()
    if step is None or not step.is_concurrent:
        return _in_place[name](variable, value)
    if step.replica > 0 and not getattr(variable, "_tfdist_is_metric", False):
        return variable  # what a layer counts is counted once a step
    # `_value`, since `value` may be another dtype's.
    value = tf.cast(variable._convert_to_tensor(value, dtype=variable.dtype), variable._value.dtype)
    getattr(variable._value, name)(tf.broadcast_to(value, variable.shape))
    return variable


def _replica() -> int:
    step = hooks.current_step()
    return 0 if step is None else step.replica


@contextlib.contextmanager
def standing_for(variables: list[Any], values: list[Any]) -> Iterator[None]:
    """Keras variables stand for other values in here."""
    own = [variable._value for variable in variables]
    try:
        for variable, value in zip(variables, values, strict=True):
            variable._value = value
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable._value = value


class MovingAverage:
    """A variable to which a step adds its changes, and its value as each replica of the step knows it.

    The changes of several replicas weigh by their rows.
    """

    def __init__(self, variable: Any, value: tf.Tensor) -> None:
        self._variable, self._first = variable, value
        self._changed: dict[int, tf.Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._variable, name)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        known = self._known()
        return known if dtype is None else tf.cast(known, dtype)

    def _known(self) -> tf.Tensor:
        return self._changed.get(_replica(), self._first)

    def assign(self, value: Any) -> MovingAverage:
        step, change = hooks.current_step(), value - self._known()
        if step is not None and tf.distribute.get_replica_context().num_replicas_in_sync > 1:
            change = tf.math.multiply_no_nan(change, tf.cast(step.row_share(), change.dtype))
        self._variable.assign_add(change)
        self._changed[_replica()] = value
        return self


class WorkerVariable:
    """A variable of the worker's own, one for each replica, zero at first.

    Args:
        like: Has its shape and dtype.
        name: In the worker's process.
        replicas: How many the worker has.
    """

    def __init__(self, like: Any, name: str, replicas: int) -> None:
        self._parts = [named_variable(like.shape, like.dtype, f"{name}/{replica}") for replica in range(replicas)]
        for part in self._parts:
            part.assign(tf.zeros(like.shape, like.dtype), read_value=False)

    @property
    def own(self) -> Any:
        """That of the replica that is traced."""
        return self._parts[_replica()]

    def total(self) -> tf.Tensor:
        """The sum over replicas."""
        return tf.add_n([part.read_value() for part in self._parts])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        value = self.own.read_value()
        return value if dtype is None else tf.cast(value, dtype)


@contextlib.contextmanager
def on_worker(variables: list[Any], prefix: str, replicas: int) -> Iterator[list[WorkerVariable]]:
    """Keras variables stand for variables of the worker itself, zero at first.

    They are found by name in the worker's process, so a worker that starts anew needs nothing to be made for it.

    Args:
        variables: Keras variables.
        prefix: Of their names on the worker, different for functions that may run at the same time.
        replicas: How many the worker has.

    Yields:
        The worker's variables.
    """
    own = [WorkerVariable(variable.value, f"{prefix}/{index}", replicas) for index, variable in enumerate(variables)]
    with standing_for(variables, own):
        yield own


class OwnVariable(resource_variable_ops.BaseResourceVariable):
    """A variable of the worker that Keras' layers and optimizers take for the one on a ps."""

    #: What optimizers find its slots by.
    _unique_id: str


def own_variable(like: Any, name: str) -> Any:
    """As `named_variable`, to stand for a Keras variable's own: trained in its place."""
    return named_variable(like.shape, like.dtype, name, like)


def centre_of(variables: list[Any]) -> list[Any]:
    """The variables on the ps of Keras variables that stand for themselves."""
    return [variable._value for variable in variables]


def named_variable(shape: Any, dtype: tf.DType, name: str, like: Any = None) -> Any:
    """A variable in the process that runs the graph, kept under a name between runs; without a value at first.

    In all graphs of a function for workers it is one and the same, or TensorFlow would not keep what is done to it in
    order.
    """
    graph = graph_of_worker()
    known = _named.setdefault(graph, {})
    if name not in known:
        with graph.as_default():
            handle = tf.raw_ops.VarHandleOp(dtype=dtype, shape=shape, shared_name=name)
        made = resource_variable_ops.BaseResourceVariable if like is None else OwnVariable
        known[name] = made(
            trainable=like is not None,
            shape=tf.TensorShape(shape),
            dtype=dtype,
            handle=handle,
            handle_name=name,
            in_graph_mode=False,
            **({} if like is None else {"unique_id": like._unique_id}),
        )
    return known[name]
