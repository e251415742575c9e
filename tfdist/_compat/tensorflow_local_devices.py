"""The devices of one worker of MultiWorkerMirroredStrategy, chosen by the user.

Upstream: the strategy takes all GPUs that its resolver counts, or `CPU:0`; there is no argument for a choice, nor for
several logical CPUs, with which replicas are tried where there are no GPUs.
Here: while a strategy is made, it asks for its devices here. Seen in TensorFlow 2.21. Can go when the strategy takes
`devices`, as MirroredStrategy does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy

_EXTENDED = collective_all_reduce_strategy.CollectiveAllReduceExtended


@contextlib.contextmanager
def local_devices(devices: Sequence[str] | None) -> Iterator[None]:
    """Strategies that are made inside have these devices on this worker.

    Args:
        devices: such as `["GPU:0", "GPU:1"]`, all of one type; None for upstream's choice.
    """
    if devices is None:
        yield
        return
    upstream = _EXTENDED._initialize_local_devices
    specs = [tf.DeviceSpec.from_string(f"/device:{device.removeprefix('/device:')}") for device in devices]

    def chosen(self: Any, cluster_resolver: Any, worker_device: str) -> tuple[tuple[str, ...], str]:
        names = tuple(f"{worker_device}{spec.to_string()}" for spec in specs)
        return names, specs[0].device_type

    _EXTENDED._initialize_local_devices = chosen
    try:
        yield
    finally:
        _EXTENDED._initialize_local_devices = upstream
