"""Values from the host to a mesh and back, each device its part only.

Each process sends the parts of its own devices, and nobody asks the others. To fetch a value whose parts are not all in
each process is a collective: all processes must do it, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.experimental import dtensor

from tfdist._compat.tensorflow_dtensor import wait_for_devices
from tfdist.layouts.mesh_axes import Spec
from tfdist.parallel.meshes import is_whole_here, whole_here

#: A part of a tensor: of each dimension, the indices of the whole.
Part = tuple[slice, ...]


def layout_of(mesh: dtensor.Mesh, spec: Spec) -> dtensor.Layout:
    """DTensor's name for a layout."""
    return dtensor.Layout([dtensor.UNSHARDED if axis is None else axis for axis in spec], mesh)


def replicated(mesh: dtensor.Mesh, rank: int) -> dtensor.Layout:
    """The layout in which every device has all."""
    return dtensor.Layout.replicated(mesh, rank)


def parts_of(layout: dtensor.Layout, shape: Any) -> list[Part]:
    """What each local device has of a tensor of this shape, in the order of the mesh's local devices."""
    found = []
    for place in layout.mesh.local_device_locations():
        part = []
        for size, axis in zip(shape, layout.sharding_specs, strict=True):
            if axis == dtensor.UNSHARDED:
                part.append(slice(0, size))
            else:
                length = size // layout.mesh.dim_size(axis)
                part.append(slice(place[axis] * length, (place[axis] + 1) * length))
        found.append(tuple(part))
    return found


def to_mesh(value: Any, layout: dtensor.Layout) -> tf.Tensor:
    """A value of the host on the mesh."""
    with tf.device("CPU:0"):
        value = tf.convert_to_tensor(value)
    return from_parts(lambda parts: [value[part] if part else value for part in parts], layout, value.shape)


def rows_to_mesh(value: Any, layout: dtensor.Layout, rows: int) -> tf.Tensor:
    """A tensor of so many rows on the mesh, from those of this process' devices alone.

    Args:
        value: has them in its first dimension, in order.
        layout: of the whole.
        rows: of the whole.
    """
    with tf.device("CPU:0"):
        value = tf.convert_to_tensor(value)
    shape = [rows, *value.shape[1:]]
    first = min(part[0].start for part in parts_of(layout, shape))

    def make(parts: list[Part]) -> list[Any]:
        return [value[slice(part[0].start - first, part[0].stop - first), ...] for part in parts]

    return from_parts(make, layout, shape)


def from_parts(make: Callable[[list[Part]], list[Any]], layout: dtensor.Layout, shape: Any) -> tf.Tensor:
    """A tensor on the mesh; its parts are made at once, equal ones once.

    Args:
        make: makes parts.
        layout: of the tensor.
        shape: of the whole.
    """
    parts = parts_of(layout, shape)
    keys = [tuple((one.start, one.stop) for one in part) for part in parts]
    different = dict(zip(keys, parts, strict=True))
    with tf.device("CPU:0"):
        made = dict(zip(different, make(list(different.values())), strict=True))
        return dtensor.pack([made[key] for key in keys], layout)


def to_host(value: tf.Tensor) -> np.ndarray:
    """A tensor of the mesh as an array; of any layout.

    Where a process has not all parts this is a collective, which gathers them on its devices, and all processes must
    call it. Else no device ever has more than its part.
    """
    layout = dtensor.fetch_layout(value)
    if not is_whole_here(layout):
        layout = whole_here(layout)
        value = dtensor.relayout(value, layout)
    wait_for_devices()
    components = dtensor.unpack(value)
    if layout.is_fully_replicated():
        return components[0].numpy()
    whole = np.empty(value.shape.as_list(), value.dtype.as_numpy_dtype)
    for part, component in zip(parts_of(layout, value.shape), components, strict=True):
        whole[part] = component.numpy()
    return whole


def is_on_mesh(value: Any) -> bool:
    """Whether a value is an eager tensor on a mesh."""
    return isinstance(value, tf.Tensor) and hasattr(value, "numpy") and bool(dtensor.is_dtensor(value))


def fetched(value: Any) -> Any:
    """A tensor of the host for one of the mesh; anything else as it is."""
    if not is_on_mesh(value):
        return value
    with tf.device("CPU:0"):
        return tf.constant(to_host(value))
