"""The devices of a mesh."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdist.layouts.mesh_axes import MeshAxes
from tfdist.log import logger


def mesh_devices(devices: Sequence[str] | None, axes: MeshAxes, processes: int = 1, index: int = 0) -> list[str]:
    """Names such as "CPU:0" for each place of the mesh that is this process', without starting TensorFlow.

    Args:
        devices: the user's, this process' or those of all processes; None for the GPUs, or the CPUs where there are
            none.
        axes: of the mesh.
        processes: that share the mesh, equally.
        index: which of them this is.

    Raises:
        ValueError: there are too few, the user has named another number of them, or processes can't have equally many.
    """
    if axes.num_devices % processes:
        raise ValueError(
            f"Each process has as many places of the mesh. Expected: a multiple of {processes} devices, one or more "
            f"for each worker. Received: mesh={dict(axes.sizes)}, which has {axes.num_devices}. Change the mesh, or "
            "the number of workers."
        )
    count = axes.num_devices // processes
    if devices is not None:
        return _named(devices, axes, count, index)
    kind = "GPU" if _count("GPU") else "CPU"
    present = _count(kind)
    if present < count:
        raise ValueError(
            f"A mesh has a device at each place. Expected: {_expected(axes, count)}. Received: {present} "
            f"{kind}{'s' if present != 1 else ''}. {_remedy(kind, count)}"
        )
    if present > count:
        logger.warning("the mesh %s takes the first %d of %d %ss", dict(axes.sizes), count, present, kind)
    return [f"{kind}:{place}" for place in range(count)]


def _named(devices: Sequence[str], axes: MeshAxes, count: int, index: int) -> list[str]:
    names = [device.removeprefix("/device:").removeprefix("/").upper() for device in devices]
    if len(names) not in (count, axes.num_devices):
        raise ValueError(
            f"A mesh has a device at each place. Expected: {_expected(axes, count)}. Received: devices={list(devices)}."
        )
    own = names if len(names) == count else names[index * count : (index + 1) * count]
    _check_present(own)
    return own


def _expected(axes: MeshAxes, count: int) -> str:
    each = "" if count == axes.num_devices else " in each process"
    return f"{count} devices{each} for mesh={dict(axes.sizes)}"


def _count(kind: str) -> int:
    """Devices of this process, the parts of one that the user has cut counted each."""
    visible = tf.config.get_visible_devices(kind)
    return sum(len(tf.config.get_logical_device_configuration(device) or [device]) for device in visible)


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
    there = [f"{kind}:{place}" for kind in ("CPU", "GPU") for place in range(_count(kind))]
    missing = [name for name in names if name not in there]
    if missing:
        kind = missing[0].partition(":")[0]
        raise ValueError(
            f"Expected: devices that TensorFlow has: {there}. Received: devices={names}. {_remedy(kind, len(names))}"
        )


def _remedy(kind: str, count: int) -> str:
    if kind == "GPU":
        return "Use a smaller mesh, or name CPUs with `devices`."
    return (
        "Use a smaller mesh; or cut the CPU, at the beginning of the program: tf.config.set_logical_device_"
        "configuration(tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * "
        f"{count})."
    )
