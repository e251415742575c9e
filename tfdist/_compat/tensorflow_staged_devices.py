"""One replica whose variables and operations are on several devices.

Upstream: `OneDeviceExtended` makes every variable and computes everything on its one device. The gradient functions of
a tape and the updates of an optimizer run under whatever device scope is open, not under the forward pass's.
Here: a subclass makes variables on the host, or on the device that it is told; updates a variable where the variable
is; and opens a device function in the replica's graph, which puts an operation where its inputs are. The placeholders
of captured variables don't know a device, so the captured tensors are asked. Variables that are made eagerly while a
function is traced, which upstream's function takes for its own and is traced a second time for, are made as elsewhere:
a pipeline's functions are long. Seen in TensorFlow 2.21. Can go when tf.distribute has a strategy that places parts of
a model.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute import device_util, distribute_lib
from tensorflow.python.distribute.one_device_strategy import OneDeviceExtended, _OneDeviceReplicaContext
from tensorflow.python.ops.resource_variable_ops import default_variable_creator_v2

#: Gives an operation's device from its inputs, of each tensor the shape and the device, "" where that isn't known; and
#: whether a tape has made the operation, to differentiate.
Place = Callable[[Sequence[tuple[tf.TensorShape, str]], bool], str]

#: By graph: how many captures it had, and the outer tensor of each by the id of its placeholder.
_captured: weakref.WeakKeyDictionary[Any, tuple[int, dict[int, Any]]] = weakref.WeakKeyDictionary()


def full_name(device: str) -> str:
    """The whole name of a device, such as "/job:localhost/replica:0/task:0/device:GPU:1"."""
    return str(device_util.canonicalize(device))


class PlacesOperations:
    """Mixin of an `extended` whose replicas have operations on several devices.

    Args:
        host: whole names of the devices for variables until they are placed, one a replica.
        place: gives an operation's device.
    """

    def _init_places(self, host: Sequence[str], place: Place) -> None:
        self._default_device = host[0]  # initial values are computed where variables are made
        self._places, self._place = tuple(host), place

    @contextlib.contextmanager
    def making_on(self, devices: Sequence[str]) -> Iterator[None]:
        """Variables that are made in here are made on these devices, one a replica."""
        before, self._places = self._places, tuple(devices)
        try:
            yield
        finally:
            self._places = before

    def _following(self) -> contextlib.AbstractContextManager[Any]:
        """Eagerly operations run where TensorFlow's own rules put them."""
        if tf.executing_eagerly():
            return contextlib.nullcontext()
        return tf.compat.v1.get_default_graph().device(self._follow)

    def _follow(self, operation: Any) -> str:
        if operation.device or operation.type == "Placeholder":  # which stands for what is elsewhere
            return str(operation.device)
        inputs = [(tensor.shape, device_of(tensor)) for tensor in operation.inputs]
        return self._place(inputs, "gradient_tape/" in operation.name)


class StagedExtended(PlacesOperations, OneDeviceExtended):
    """What `tf.distribute.Strategy.extended` is to a strategy of one replica on several devices.

    Args:
        strategy: whose it is.
        host: whole name of the device for variables until they are placed.
        place: gives an operation's device.
    """

    def __init__(self, strategy: Any, host: str, place: Place) -> None:
        super().__init__(strategy, host)
        self._init_places([host], place)

    def _create_variable(self, next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        beside = kwargs.pop("colocate_with", None)
        with tf.device(getattr(beside, "device", None) or self._places[0]):
            return creator_outside(next_creator)(**kwargs)

    def _call_for_each_replica(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        with _OneDeviceReplicaContext(self._container_strategy()), self._following():
            return fn(*args, **kwargs)

    def _update(self, var: Any, fn: Callable[..., Any], args: Any, kwargs: Any, group: bool) -> Any:
        return self._update_non_slot(var, fn, (var, *args), kwargs, group)

    def _update_non_slot(self, colocate_with: Any, fn: Any, args: Any, kwargs: Any, group: bool) -> Any:
        device = getattr(colocate_with, "device", None) or self._device
        with tf.device(device), distribute_lib.UpdateContext(device):
            result = fn(*args, **kwargs)
        return result if group else tf.nest.map_structure(self._local_results, result)


def creator_outside(next_creator: Callable[..., Any]) -> Callable[..., Any]:
    """The creator of a variable; of one that is made eagerly while a function is traced, not that function's."""
    if tf.executing_eagerly() and tf.compat.v1.get_default_graph().building_function:
        return default_variable_creator_v2
    return next_creator


def device_of(tensor: Any) -> str:
    """The device that a tensor of a graph was given, or that of the variable that it was read from; "" if unknown."""
    while not isinstance(tensor, tf.__internal__.EagerTensor):
        if tensor.op.type == "Placeholder" and id(tensor) in _outer_tensors(tensor.graph):
            tensor = _outer_tensors(tensor.graph)[id(tensor)]
        elif tensor.op.type == "ReadVariableOp" and not tensor.device:
            tensor = tensor.op.inputs[0]
        else:
            break
    return str(tensor.device)


def _outer_tensors(graph: Any) -> dict[int, Any]:
    count, outer = _captured.get(graph, (0, {}))
    captures = getattr(graph, "captures", ())
    if count != len(captures):
        outer = {id(inner): outside for outside, inner in captures}
        _captured[graph] = (len(captures), outer)
    return outer
