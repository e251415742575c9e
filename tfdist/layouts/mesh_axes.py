"""The named axes of a mesh of devices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Of each dimension of a tensor: the axis over which it is split, or None.
Spec = tuple[str | None, ...]


@dataclass(frozen=True)
class MeshAxes:
    """Names and sizes of a mesh's axes, in the order in which devices fill it, the last one fastest.

    Args:
        sizes: by name.
        batch_axis: the axis over which the rows of a batch are split; a mesh without it has one part of them.

    Raises:
        ValueError: a size is no positive integer, or there are none.
    """

    sizes: Mapping[str, int]
    batch_axis: str = "batch"

    def __post_init__(self) -> None:
        sizes = dict(self.sizes)
        wrong = [name for name, size in sizes.items() if not _is_size(size) or not name or not isinstance(name, str)]
        if not sizes or wrong:
            raise ValueError(
                "A mesh has named axes and how many devices each has. Expected: such as "
                f"mesh={{'batch': 2, 'model': 4}}. Received: mesh={sizes}."
            )
        object.__setattr__(self, "sizes", {name: int(size) for name, size in sizes.items()})

    @property
    def num_devices(self) -> int:
        """Product of the axes' sizes."""
        return math.prod(self.sizes.values())

    @property
    def num_batch_parts(self) -> int:
        """Into how many parts the rows of a batch are split."""
        return self.sizes.get(self.batch_axis, 1)

    def check(self, spec: Spec, rank: int, what: str) -> None:
        """Raises ValueError unless a tensor of this rank can be split as `spec` says."""
        if len(spec) != rank:
            raise ValueError(
                f"A layout names an axis of the mesh, or None, for each dimension of a variable. Expected: {rank} for "
                f"{what}. Received: {spec}, which has {len(spec)}."
            )
        used = [name for name in spec if name is not None]
        unknown = sorted(set(used) - set(self.sizes))
        if unknown:
            raise ValueError(
                f"A layout names axes of the mesh. Expected: None or one of {sorted(self.sizes)} for {what}. Received: "
                f"{spec}, with {', '.join(map(repr, unknown))}. Add the axis to `mesh`, or correct the layout."
            )
        if len(set(used)) != len(used):
            raise ValueError(
                f"An axis of the mesh splits one dimension of a variable. Received: {spec} for {what}, which has one "
                "twice. Replace one of them by None."
            )

    def divisible(self, spec: Spec, shape: Sequence[int]) -> Spec:
        """`spec` without the axes whose size doesn't divide the dimension."""
        return tuple(
            None if name is None or size % self.sizes[name] else name for name, size in zip(spec, shape, strict=True)
        )

    def num_parts(self, spec: Spec) -> int:
        """Into how many different parts a tensor is split."""
        return math.prod(self.sizes[name] for name in spec if name is not None)

    def with_axis(self, axis: str, spec: Spec, shape: Sequence[int]) -> Spec:
        """`spec` with the largest dimension that is whole, and that the axis divides, split over it.

        Without such a dimension, or where the axis splits one already, `spec` as it is.
        """
        size = self.sizes.get(axis, 1)
        free = [place for place, name in enumerate(spec) if name is None and shape[place] and not shape[place] % size]
        if size == 1 or axis in spec or not free:
            return spec
        chosen = max(free, key=lambda place: shape[place])
        return tuple(axis if place == chosen else name for place, name in enumerate(spec))


def mesh_axes(mesh: Any, batch_axis: str) -> MeshAxes:
    """Axes of what the user gave as `mesh`: a mapping, or a `keras.distribution.DeviceMesh`."""
    if isinstance(mesh, Mapping):
        return MeshAxes(mesh, batch_axis)
    if hasattr(mesh, "axis_names") and hasattr(mesh, "shape"):
        return MeshAxes(dict(zip(mesh.axis_names, mesh.shape, strict=True)), batch_axis)
    raise ValueError(
        "Expected: mesh={'batch': 2, 'model': 4}, or a keras.distribution.DeviceMesh. Received: "
        f"mesh={mesh!r}, of type {type(mesh).__name__}."
    )


def _is_size(size: Any) -> bool:
    return not isinstance(size, bool) and hasattr(size, "__index__") and int(size) > 0
