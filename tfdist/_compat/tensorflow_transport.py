"""All-reduces and all-gathers of a strategy through something else than TensorFlow's own collectives.

Upstream: `CollectiveReplicaLauncher` makes the operations of one device, over gRPC or NCCL; there is no way to plug in
another transport.
Here: the launchers of one strategy instance call Python functions instead. Each call reads and writes a variable, by
which automatic control dependencies chain them, inside loops and functions too, in the order of the program, which is
that of all workers. Seen in TensorFlow 2.21. Can go when strategies take a transport.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import cross_device_ops
from tensorflow.python.eager import context

#: MPI has no sums of the half-precision types, and float32 loses nothing of them.
_SUMMED_AS = {
    tf.float32: tf.float32,
    tf.float64: tf.float64,
    tf.int32: tf.int32,
    tf.int64: tf.int64,
    tf.float16: tf.float32,
    tf.bfloat16: tf.float32,
}


class Transport(Protocol):
    """What workers send arrays through; every worker makes the same calls in the same order."""

    def sum(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Each array's sum over all workers; arrays of one type, in memory that is nobody else's."""

    def gather(self, array: np.ndarray) -> np.ndarray:
        """All workers' arrays, of equal shapes, one after another by their first dimension."""


def has_one_cpu(strategy: tf.distribute.Strategy) -> bool:
    """Whether each worker of the strategy has one device, a CPU."""
    devices = strategy.extended.worker_devices
    return len(devices) == 1 and tf.DeviceSpec.from_string(devices[0]).device_type == "CPU"


def use_transport(strategy: tf.distribute.Strategy, transport: Transport) -> None:
    """Send what a strategy's workers, which have one CPU each, add up and gather.

    Groups of other sizes than the strategy's stay with TensorFlow's collectives.
    """
    _turns()  # outside of the strategy's scope, in which variables are other ones
    for communicator in vars(strategy.extended).values():
        if isinstance(communicator, cross_device_ops.CollectiveAllReduce):
            for launcher in communicator._launchers:
                if launcher._group_size == strategy.extended._num_workers:
                    _replace(launcher, transport)


def _replace(launcher: Any, transport: Transport) -> None:
    upstream_sum, upstream_gather = launcher.all_reduce, launcher._all_gather

    def all_reduce(value: Any, control_input: Any = None, options: Any = None) -> Any:
        value = tf.convert_to_tensor(value)
        if value.dtype not in _SUMMED_AS:
            return upstream_sum(value, control_input, options)
        return sums([value])[0]

    def batch_all_reduce(packs: Sequence[Sequence[Any]], options: Any = None) -> list[Any]:
        # The values of a pack are of one type, but for eager calls, whose order is that of the program.
        one_by_one = tf.executing_eagerly() or any(value.dtype not in _SUMMED_AS for pack in packs for value in pack)
        if one_by_one:
            return [all_reduce(value, None, options) for pack in packs for value in pack]
        return [total for pack in packs for total in sums(pack)]

    def sums(values: Sequence[Any]) -> list[Any]:
        dtype = values[0].dtype
        sent = [tf.cast(value, _SUMMED_AS[dtype]) for value in values]
        totals = _call(launcher._device, transport.sum, sent)
        for total, value in zip(totals, sent, strict=True):
            total.set_shape(value.shape)
        return [tf.cast(total, dtype) for total in totals]

    def all_gather(value: Any, options: Any) -> Any:
        if value.dtype in (tf.string, tf.variant):
            return upstream_gather(value, options)
        (gathered,) = _call(launcher._device, lambda array: [transport.gather(array)], [value])
        rows = None if value.shape[0] is None else value.shape[0] * launcher._group_size
        gathered.set_shape([rows, *value.shape[1:]])
        return gathered

    launcher.all_reduce, launcher.batch_all_reduce, launcher._all_gather = all_reduce, batch_all_reduce, all_gather


def _call(device: str, function: Any, inputs: Sequence[Any]) -> list[Any]:
    types = [value.dtype for value in inputs]
    with tf.device(device):
        if tf.executing_eagerly():
            return tf.nest.flatten(tf.numpy_function(function, inputs, types))
        turn = _turns()
        with tf.control_dependencies([turn.assign_add(1, read_value=False)]):
            outputs = tf.nest.flatten(tf.numpy_function(function, inputs, types))
        with tf.control_dependencies(outputs):
            turn.assign_add(1, read_value=False)
        return outputs


_variables: dict[int, tf.Variable] = {}


def _turns() -> tf.Variable:
    place = id(context.context())
    if place not in _variables:
        with tf.init_scope(), tf.device("CPU:0"):
            _variables[place] = tf.Variable(0, dtype=tf.int64, trainable=False, name="transport_turns")
    return _variables[place]
