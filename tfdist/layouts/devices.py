"""The devices of a mesh."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdist.layouts.mesh_axes import MeshAxes
from tfdist.log import logger


def mesh_devices(devices: Sequence[str] | None, axes: MeshAxes) -> list[str]:
    """Names such as "CPU:0" for each place of the mesh.

    Args:
        devices: the user's; None for the GPUs, or the CPUs where there are none.
        axes: of the mesh.

    Raises:
        ValueError: there are too few, or the user has named more than the mesh has places.
    """
    count = axes.num_devices
    if devices is not None:
        names = [device.removeprefix("/device:").removeprefix("/").upper() for device in devices]
        if len(names) != count:
            raise ValueError(
                f"A mesh has a device at each place. Expected: {count} devices for mesh={dict(axes.sizes)}. Received: "
                f"devices={list(devices)}."
            )
        _check_present(names)
        return names
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    present = len(tf.config.list_logical_devices(kind))
    if present < count:
        raise ValueError(
            f"A mesh has a device at each place. Expected: {count} devices for mesh={dict(axes.sizes)}. Received: "
            f"{present} {kind}{'s' if present != 1 else ''}. {_remedy(kind, count)}"
        )
    if present > count:
        logger.warning("the mesh %s takes the first %d of %d %ss", dict(axes.sizes), count, present, kind)
    return [f"{kind}:{index}" for index in range(count)]


def logical_cpus(count: int) -> list[str]:
    """Cut this machine's CPU into devices, to try a mesh without GPUs; before TensorFlow makes its devices.

    Args:
        count: how many.

    Returns:
        Their names.

    Raises:
        RuntimeError: TensorFlow has made its devices already, another number of them.

    Example:

        strategy = tfdist.HybridParallelStrategy(
            {"batch": 2, "model": 2}, devices=tfdist.layouts.logical_cpus(4)
        )
    """
    (cpu,) = tf.config.list_physical_devices("CPU")
    configured = tf.config.get_logical_device_configuration(cpu)
    if configured is None or len(configured) != count:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError as error:
            raise RuntimeError(
                f"The CPU can be cut only before TensorFlow makes its devices, which any tensor makes it do. Expected: "
                f"logical_cpus({count}) at the beginning of the program. Received: {error}."
            ) from None
    return [f"CPU:{index}" for index in range(count)]


def _check_present(names: list[str]) -> None:
    there = {device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()}
    missing = [name for name in names if name not in there]
    if missing:
        kind = missing[0].partition(":")[0]
        raise ValueError(
            f"Expected: devices that TensorFlow has: {sorted(there)}. Received: devices={names}. "
            f"{_remedy(kind, len(names))}"
        )


def _remedy(kind: str, count: int) -> str:
    if kind == "GPU":
        return "Use a smaller mesh, or name CPUs with `devices`."
    return (
        "Use a smaller mesh; or cut the CPU, at the beginning of the program: tf.config.set_logical_device_"
        "configuration(tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * "
        f"{count})."
    )
