"""A mesh over the devices of one or several processes, and what of a tensor on it each process has.

Devices are numbered process by process, and fill the mesh in its axes' order, the last one fastest. So neighbours in
the last axis are on one machine, where they can be, and which axes are within a machine follows from their order.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow.experimental import dtensor

from tfdist.data.sharding import ShardOptions
from tfdist.layouts.mesh_axes import MeshAxes


def make_mesh(axes: MeshAxes, names: Sequence[str], *, job: str, index: int) -> dtensor.Mesh:
    """DTensor's mesh.

    Args:
        axes: of the mesh.
        names: of this process' devices, such as "CPU:0".
        job: TensorFlow's name for the processes.
        index: of this process.
    """
    devices = [f"/job:{job}/replica:0/task:{index}/device:{name}" for name in names]
    return dtensor.Mesh(
        dim_names=list(axes.sizes),
        global_device_ids=np.arange(axes.num_devices).reshape(tuple(axes.sizes.values())),
        local_device_ids=list(range(index * len(names), (index + 1) * len(names))),
        local_devices=devices,
    )


def is_whole_here(layout: dtensor.Layout) -> bool:
    """Whether each process has all parts of a tensor of this layout on its own devices."""
    split = tuple(axis for axis in layout.sharding_specs if axis != dtensor.UNSHARDED)
    return _is_whole(_sizes(layout.mesh), layout.mesh.num_local_devices(), split)


def whole_here(layout: dtensor.Layout) -> dtensor.Layout:
    """The layout, without axes that keep it from being whole in each process; other axes stay split."""
    specs = [dtensor.UNSHARDED] * layout.rank
    for dimension, axis in enumerate(layout.sharding_specs):
        with_axis = [*specs[:dimension], axis, *specs[dimension + 1 :]]
        if is_whole_here(dtensor.Layout(with_axis, layout.mesh)):
            specs = with_axis
    return dtensor.Layout(specs, layout.mesh)


def share_of_batches(axes: MeshAxes, mesh: dtensor.Mesh) -> ShardOptions:
    """Which rows of each batch this process' devices hold, where processes that hold the same rows read the same.

    Of a mesh whose processes' rows overlap otherwise, everything.
    """
    if axes.num_batch_parts == 1:
        return ShardOptions()
    local = mesh.num_local_devices()
    parts = _places(_sizes(mesh), (axes.batch_axis,))
    held = [frozenset(parts[first : first + local]) for first in range(0, len(parts), local)]
    different = sorted(set(held), key=min)
    if sum(map(len, different)) != axes.num_batch_parts or len({len(one) for one in different}) > 1:
        return ShardOptions()
    return ShardOptions(len(different), different.index(held[mesh.local_device_ids()[0] // local]))


def _sizes(mesh: dtensor.Mesh) -> tuple[tuple[str, int], ...]:
    return tuple((name, mesh.dim_size(name)) for name in mesh.dim_names)


@functools.lru_cache(maxsize=1024)
def _is_whole(sizes: tuple[tuple[str, int], ...], local: int, split: tuple[str, ...]) -> bool:
    places = _places(sizes, split)
    return all(len(set(places[first : first + local])) == len(set(places)) for first in range(0, len(places), local))


def _places(sizes: tuple[tuple[str, int], ...], axes: Sequence[str]) -> list[tuple[Any, ...]]:
    """Of each device, where it is on some axes."""
    names = [name for name, _ in sizes]
    everywhere = itertools.product(*(range(size) for _, size in sizes))
    return [tuple(place[names.index(axis)] for axis in axes) for place in everywhere]
