"""Where a parameter-server job's variables lie, and on which devices its workers compute.

Upstream: `ParameterServerStrategyV2` deals variables to the ps tasks by turns, so one may hold ten times the bytes of
another; metrics' variables lie there too, and every update of every metric is a message for each of them. Layers that
look up rows (Embedding) read the whole variable. The shape of a variable that Keras makes isn't known until its initial
value is there, so it can't be made in shards without making it as a whole. Replicas are a worker's GPUs only.
Here: each variable goes to the task that holds the fewest bytes, and metrics' variables to the chief, which sums up
what workers report; rows are looked up on the ps; shards and their slots are drawn on theirs (see
tensorflow_sharded_variables.py). Replicas are the devices that were chosen. One strategy's `extended` is changed at a
time, no class.
Seen in TensorFlow 2.21, Keras 3.15.1. Can go when upstream balances by size.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src import backend
from tensorflow.python.distribute import distribute_lib, parameter_server_strategy_v2, ps_values
from tensorflow.python.distribute.sharded_variable import ShardedVariable

from tfdist._compat import hooks
from tfdist._compat.keras_shard_initializers import ByShard, by_shard
from tfdist._compat.keras_worker_variables import OwnVariable
from tfdist._compat.tensorflow_coordinator import CHIEF_CPU
from tfdist._compat.tensorflow_sharded_variables import Shards, read_rows

_local = threading.local()
_add_variable = keras.metrics.Metric.add_variable
_initialize_with_initializer = backend.Variable._initialize_with_initializer


def install() -> None:
    """Let variables say how they are initialized, and whether they are a metric's, as they are made."""
    keras.metrics.Metric.add_variable = add_metric_variable
    backend.Variable._initialize_with_initializer = initialize_with_initializer


def place_variables(strategy: Any) -> None:
    """Place the variables that are made under this strategy as described above."""
    extended = strategy.extended
    extended.__class__ = _Placing
    extended._tfdist_bytes = [0] * extended._num_ps
    extended._tfdist_devices = ("/device:CPU:0",)


def use_devices(strategy: Any, devices: list[str]) -> None:
    """Have each worker compute on these devices of its own; upstream takes its GPUs only."""
    strategy.extended._tfdist_devices = tuple(devices)


def once_for_all_replicas(step: Any, function: Callable[[], None]) -> None:
    """Called by all replicas: the first one's function is run, when all have come, in a replica of its own."""

    def run(strategy: Any) -> None:
        with in_one_replica(strategy), hooks.step_scope(step):
            function()

    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        function()
    else:
        context.merge_call(tf.autograph.experimental.do_not_convert(run))


@contextlib.contextmanager
def in_one_replica(strategy: Any) -> Iterator[None]:
    """What is in here is traced once for a worker, as if it had no other replica; its replicas wait."""
    extended = strategy.extended
    devices = extended._tfdist_devices
    extended._tfdist_devices = devices[:1]
    try:
        with distribute_lib.ReplicaContext(strategy, replica_id_in_sync_group=0):
            yield
    finally:
        extended._tfdist_devices = devices


def bytes_by_ps(strategy: Any) -> list[int]:
    """Bytes of variables that each ps task holds."""
    return list(strategy.extended._tfdist_bytes)


@functools.wraps(_add_variable)
def add_metric_variable(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Upstream's, noted while it runs, and for the variable, which may be initialized later."""
    with _making_metric(True):
        variable = _add_variable(self, *args, **kwargs)
    variable._tfdist_is_metric = True
    return variable


@contextlib.contextmanager
def _making_metric(is_metric: bool) -> Iterator[None]:
    outer = getattr(_local, "is_metric", False)
    _local.is_metric = outer or is_metric
    try:
        yield
    finally:
        _local.is_metric = outer


@functools.wraps(_initialize_with_initializer)
def initialize_with_initializer(self: Any, initializer: Any) -> None:
    """Upstream's, with the shape and the initializer known beforehand."""
    if not isinstance(tf.distribute.get_strategy().extended, _Placing):
        return _initialize_with_initializer(self, initializer)
    outer = getattr(_local, "initial", None)
    _local.initial = {"shape": self._shape, "initial_value": by_shard(initializer, self._shape, self._dtype)}
    try:
        with _making_metric(getattr(self, "_tfdist_is_metric", False)):
            _initialize_with_initializer(self, initializer)
    finally:
        _local.initial = outer
    self.sparse_read = functools.partial(read_rows, self)
    return None


class _Placing(parameter_server_strategy_v2.ParameterServerStrategyV2Extended):
    """Variables by bytes, metrics on the chief; replicas on the devices that were chosen."""

    @property
    def worker_devices(self) -> tuple[str, ...]:
        return self._tfdist_devices

    @property
    def _num_replicas_in_sync(self) -> int:
        return len(self._tfdist_devices)

    def _create_var_creator(self, next_creator: Any, **kwargs: Any) -> Any:
        # Upstream's for several replicas have each assignment wait for all of them; steps here see to that themselves.
        return lambda **own: ps_values.CachingVariable(next_creator(**own))

    def _create_variable(self, next_creator: Any, **kwargs: Any) -> Any:
        if getattr(_local, "is_metric", False):
            with tf.device(CHIEF_CPU):
                return next_creator(**kwargs)
        initial, _local.initial = getattr(_local, "initial", None), None
        if initial is not None and initial["initial_value"] is not None:
            kwargs |= initial | {"dtype": tf.as_dtype(kwargs["dtype"])}
        reference = kwargs.get("colocate_with")
        if isinstance(reference, Shards):
            return self._create_slot(next_creator, reference, **kwargs)
        variable = super()._create_variable(next_creator, **kwargs)
        if reference is not None:
            self._count_bytes(variable)
        if isinstance(variable, ShardedVariable):
            return _filled(Shards(variable.variables, kwargs.get("name")), kwargs.get("initial_value"))
        return variable

    def _create_slot(self, next_creator: Any, reference: Shards, **kwargs: Any) -> Any:
        """A slot lies where the shards of its variable do; one of another shape (row statistics) lies anywhere."""
        name = kwargs.pop("name", None)
        initial_value = kwargs.pop("initial_value")
        values = _initial_parts(reference, kwargs.pop("shape", None), initial_value)
        if callable(values):
            del kwargs["colocate_with"]
            return self._create_variable(next_creator, name=name, initial_value=values, **kwargs)
        parts = []
        for index, (part, value) in enumerate(zip(reference.variables, values, strict=True)):
            own = kwargs | {"colocate_with": part, "initial_value": value, "name": f"{name}/part_{index}"}
            parts.append(super()._create_variable(next_creator, **own))
            self._count_bytes(parts[-1])
        return _filled(Shards(parts, name, reference), initial_value)

    def _create_variable_round_robin(self, next_creator: Any, **kwargs: Any) -> Any:
        # Upstream takes the number of variables so far, modulo the tasks: say the number of the lightest.
        self._variable_count = self._tfdist_bytes.index(min(self._tfdist_bytes))
        variable = super()._create_variable_round_robin(next_creator, **kwargs)
        self._count_bytes(variable)
        return variable

    def _count_bytes(self, variable: Any) -> None:
        task = tf.DeviceSpec.from_string(variable.device).task
        if task is not None:
            size = variable.shape.num_elements() * variable.dtype.size
            self._tfdist_bytes[task] += size
            weakref.finalize(variable, _forget, self._tfdist_bytes, task, size).atexit = False

    def _call_for_each_replica(self, fn: Any, args: Any, kwargs: Any) -> Any:
        if len(self._tfdist_devices) > 1:
            return super()._call_for_each_replica(fn, args, kwargs)
        # Upstream starts a thread for the replica, and one more inside `merge_call`, which know of no step.
        with distribute_lib.ReplicaContext(self._container_strategy(), replica_id_in_sync_group=0):
            return fn(*args, **kwargs)

    def _update(self, var: Any, fn: Any, args: Any, kwargs: Any, group: bool) -> Any:
        if isinstance(var, OwnVariable):
            with distribute_lib.UpdateContext(var.device):
                return fn(var, *args, **kwargs)
        if not isinstance(var, Shards):
            return super()._update(var, fn, args, kwargs, group)
        update = super()._update
        return var.update_each(lambda part, one, *own: update(part, one, *own, group), fn, args, kwargs)


def _forget(bytes_of_tasks: list[int], task: int, size: int) -> None:
    bytes_of_tasks[task] -= size


def _initial_parts(reference: Shards, shape: Any, initial_value: Any) -> Any:
    """What a slot's shards begin with, or a function that gives the whole if the slot has another shape."""
    if shape is None:
        whole = tf.convert_to_tensor(initial_value() if callable(initial_value) else initial_value)
        return reference.split(whole) if whole.shape == reference.shape else lambda: whole
    if tf.TensorShape(shape) != reference.shape:
        return initial_value
    return [
        functools.partial(initial_value, partition_shape=part.shape, partition_offset=offset)
        for part, offset in zip(reference.variables, reference._var_offsets, strict=True)
    ]


def _filled(shards: Shards, initial_value: Any) -> Shards:
    if isinstance(initial_value, ByShard):
        for part, (first_row, *_) in zip(shards.variables, shards._var_offsets, strict=True):
            initial_value.fill(part, first_row)
    return shards


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
