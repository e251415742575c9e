"""Bytes that variables take on each device, as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfdist.layouts.mesh_axes import MeshAxes, Spec
from tfdist.tables import aligned


def part_bytes(axes: MeshAxes, spec: Spec, shape: Sequence[int], itemsize: int) -> int:
    """Bytes of a variable on each device."""
    return math.prod(shape) * itemsize // axes.num_parts(spec)


@dataclass(frozen=True)
class MemoryRow:
    """One variable.

    Args:
        path: Keras'.
        shape: whole.
        dtype: its name.
        kept: the layout between steps.
        used: the layout in which layers compute with it.
        parameter_bytes: of it on each device, between steps.
        slot_bytes: of what the optimizer keeps for it, on each device; gradient accumulators and averages are among it.
        gradient_bytes: of its gradient on each device, as the optimizer gets it.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    kept: Spec
    used: Spec
    parameter_bytes: int
    slot_bytes: int
    gradient_bytes: int


@dataclass(frozen=True)
class MemoryReport:
    """What a model's variables take on each device; `str` of it is a table.

    Args:
        axes: of the mesh.
        rows: one a variable.
        other_slot_bytes: of optimizer variables that belong to no parameter, or have another shape, on each device.
    """

    axes: MeshAxes
    rows: tuple[MemoryRow, ...]
    other_slot_bytes: int = 0

    @property
    def parameter_bytes(self) -> int:
        """On each device."""
        return sum(row.parameter_bytes for row in self.rows)

    @property
    def slot_bytes(self) -> int:
        """On each device."""
        return sum(row.slot_bytes for row in self.rows) + self.other_slot_bytes

    @property
    def gradient_bytes(self) -> int:
        """On each device."""
        return sum(row.gradient_bytes for row in self.rows)

    @property
    def total_bytes(self) -> int:
        """On each device."""
        return self.parameter_bytes + self.slot_bytes + self.gradient_bytes

    @property
    def replicated(self) -> list[str]:
        """Paths of variables that each device has whole."""
        return [row.path for row in self.rows if self.axes.num_parts(row.kept) == 1]

    def __str__(self) -> str:
        heads = ("variable", "shape", "kept", "parameter", "slots", "gradient")
        cells = [_cells(row) for row in self.rows]
        if self.other_slot_bytes:
            cells.append(("(optimizer's own)", "", "", "", size(self.other_slot_bytes), ""))
        totals = [size(number) for number in (self.parameter_bytes, self.slot_bytes, self.gradient_bytes)]
        cells.append((f"each of {self.axes.num_devices} devices", "", "", *totals))
        lines = aligned([heads, *cells])
        rule = "-" * max(map(len, lines))
        return "\n".join((lines[0], rule, *lines[1:-1], rule, lines[-1]))


def _cells(row: MemoryRow) -> tuple[str, ...]:
    kept = describe(row.kept) if row.kept == row.used else f"{describe(row.kept)}, used {describe(row.used)}"
    numbers = (size(number) for number in (row.parameter_bytes, row.slot_bytes, row.gradient_bytes))
    return (row.path, f"{row.dtype} {list(row.shape)}", kept, *numbers)


def describe(spec: Spec) -> str:
    """A layout in short: `[batch, -]`, or "whole"."""
    return "whole" if not any(spec) else f"[{', '.join(axis or '-' for axis in spec)}]"


def size(number: int) -> str:
    """Bytes for people: at most four digits, and a unit of 1024."""
    value, units = float(number), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
