"""Where a parameter-server job's variables lie, and what is asked of its coordinator.

Upstream: `ParameterServerStrategyV2` deals variables to the ps tasks by turns, so one may hold ten times the bytes of
another; metrics' variables lie there too, and every update of every metric is a message for each of them. The size of
a variable that Keras makes isn't known until its initial value is there.
Here: each variable goes to the task that holds the fewest bytes, and metrics' variables to the chief, which sums up
what workers report. One strategy's `extended` is changed at a time, no class. Python functions can be scheduled.
Seen in TensorFlow 2.21, Keras 3.15.1. Can go when upstream balances by size.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src import backend
from tensorflow.python.distribute import parameter_server_strategy_v2
from tensorflow.python.distribute.coordinator import coordinator_context

CHIEF_CPU = "/job:chief/replica:0/task:0/device:CPU:0"

_local = threading.local()
_add_variable = keras.metrics.Metric.add_variable
_initialize_with_initializer = backend.Variable._initialize_with_initializer


def install() -> None:
    """Let variables say how large they are, and whether they are a metric's, as they are made."""
    keras.metrics.Metric.add_variable = add_metric_variable
    backend.Variable._initialize_with_initializer = initialize_with_initializer


def place_variables(strategy: Any) -> None:
    """Place the variables that are made under this strategy as described above."""
    extended = strategy.extended
    extended.__class__ = _Placing
    extended._tfdist_bytes = [0] * extended._num_ps


def bytes_by_ps(strategy: Any) -> list[int]:
    """Bytes of variables that each ps task holds."""
    return list(strategy.extended._tfdist_bytes)


@functools.wraps(_add_variable)
def add_metric_variable(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Upstream's, noted while it runs."""
    outer = getattr(_local, "is_metric", False)
    _local.is_metric = True
    try:
        return _add_variable(self, *args, **kwargs)
    finally:
        _local.is_metric = outer


@functools.wraps(_initialize_with_initializer)
def initialize_with_initializer(self: Any, initializer: Any) -> None:
    """Upstream's, with the size known beforehand."""
    outer = getattr(_local, "size_bytes", None)
    _local.size_bytes = tf.TensorShape(self._shape).num_elements() * tf.as_dtype(self._dtype).size
    try:
        _initialize_with_initializer(self, initializer)
    finally:
        _local.size_bytes = outer


class _Placing(parameter_server_strategy_v2.ParameterServerStrategyV2Extended):
    """Variables by bytes, metrics on the chief."""

    def _create_variable(self, next_creator: Any, **kwargs: Any) -> Any:
        if getattr(_local, "is_metric", False):
            with tf.device(CHIEF_CPU):
                return next_creator(**kwargs)
        variable = super()._create_variable(next_creator, **kwargs)
        for one in getattr(variable, "variables", [variable]):
            task = tf.DeviceSpec.from_string(one.device).task
            if task is not None:
                self._tfdist_bytes[task] += one.shape.num_elements() * one.dtype.size
        return variable

    def _create_variable_round_robin(self, next_creator: Any, **kwargs: Any) -> Any:
        # Upstream takes the number of variables so far, modulo the tasks: say the number of the lightest.
        self._variable_count = self._tfdist_bytes.index(min(self._tfdist_bytes))
        return super()._create_variable_round_robin(next_creator, **kwargs)


def cancelable(coordinator: Any, function: Any) -> Callable[..., Any]:
    """A concrete function, ended early when the coordinator's job has failed."""
    return coordinator._cluster.closure_queue._cancellation_mgr.get_cancelable_function(function)


def current_worker() -> int:
    """In a function that the coordinator runs: the index of the worker that it runs for."""
    return int(coordinator_context.get_current_dispatch_context().worker_index)


@contextlib.contextmanager
def tracing_for_workers(strategy: Any) -> Iterator[None]:
    """While functions for workers are traced; upstream warns of calls that it takes for the chief's own."""
    extended = strategy.extended
    outer = extended._being_scheduled
    extended._being_scheduled = True
    try:
        yield
    finally:
        extended._being_scheduled = outer


def schedule(coordinator: Any, function: Callable[[], Any]) -> None:
    """Have a Python function called in the thread and on the device of a worker, again on another if that one fails.

    Upstream takes graph functions only, which leave no place to choose what a worker works on as it begins.
    """
    coordinator._cluster.schedule(function, args=(), kwargs={})
