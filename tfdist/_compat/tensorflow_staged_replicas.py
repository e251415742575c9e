"""Several replicas, each of which has its variables and operations on several devices.

Upstream: `MirroredExtended` gives a replica one device, on which it has its copy of each variable and gets its input.
Here: a subclass makes a variable's copies on the devices that it is told, one a replica; puts operations where their
inputs are, as `tensorflow_staged_devices` does for one replica; hands out input on the host; and adds up a value on the
device where the first replica has it, from which the sum is copied to where the others have theirs, so that it is the
same to the bit. Seen in TensorFlow 2.21. Can go when tf.distribute has a strategy that places parts of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.mirrored_strategy import MirroredExtended

from tfdist._compat.tensorflow_staged_devices import Place, PlacesOperations, creator_outside


@dataclass
class _Beside:
    """What upstream asks of a variable beside which another one is to be made."""

    _devices: Sequence[str]


class StagedReplicasExtended(PlacesOperations, MirroredExtended):
    """What `tf.distribute.Strategy.extended` is to a strategy whose replicas have several devices each.

    Args:
        strategy: whose it is.
        host: whole name of the device for variables until they are placed, and for input.
        devices: whole names, one of each replica's.
        place: gives an operation's device.
    """

    def __init__(self, strategy: Any, host: str, devices: Sequence[str], place: Place) -> None:
        self._replica_devices = tuple(devices)
        strategy._collective_key_base = 0  # upstream asks for it; there are no collectives
        super().__init__(strategy, [host], tf.distribute.ReductionToOneDevice())
        self._init_places([host] * len(devices), place)

    def _initialize_strategy(self, devices: Sequence[str]) -> None:
        (host,) = devices
        self._devices = self._replica_devices
        self._input_workers_devices = ((host, (host,) * len(self._devices)),)

    def _get_cross_device_ops(self, value: Any) -> Any:
        return self._cross_device_ops

    def _create_variable(self, next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        if kwargs.get("colocate_with") is None:
            kwargs["colocate_with"] = _Beside(self._places)
        return super()._create_variable(creator_outside(next_creator), **kwargs)

    def _call_for_each_replica(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        @tf.autograph.experimental.do_not_convert
        def followed(*args: Any, **kwargs: Any) -> Any:
            with self._following():
                return fn(*args, **kwargs)

        with self._following():  # what replicas call together too
            return super()._call_for_each_replica(followed, args, kwargs)


def replica_index() -> int:
    """Which replica asks, 0 where none does; makes no operation, as `replica_id_in_sync_group` would."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else int(context._replica_id)
