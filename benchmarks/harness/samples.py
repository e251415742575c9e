"""What was measured: a number for each round, contender, setting and quantity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Quantity:
    """Something that is measured.

    Args:
        name: "step".
        unit: in which it's printed: "ms".
        scale: what a number is multiplied by to be in this unit.
        is_plotted: whether the picture has it.
        has_ratio: whether it's compared with the baseline.
    """

    name: str
    unit: str
    scale: float = 1.0
    is_plotted: bool = False
    has_ratio: bool = True

    @property
    def heading(self) -> str:
        """With the unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


class Key(NamedTuple):
    """Of a row of numbers."""

    contender: str
    setting: str
    quantity: str


@dataclass
class Samples:
    """By key and round, and what failed.

    Args:
        values: of each key, by round.
        failures: what a case said when it failed, by (contender, setting).
    """

    values: dict[Key, dict[int, float]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, contender: str, setting: str, number: int, measured: Mapping[str, float | None]) -> None:
        """One case in one round; None is left out."""
        for quantity, value in measured.items():
            if value is not None:
                self.values.setdefault(Key(contender, setting, quantity), {})[number] = value

    def of(self, contender: str, setting: str, quantity: str) -> dict[int, float]:
        """By round; empty if there is nothing."""
        return self.values.get(Key(contender, setting, quantity), {})

    def contenders(self) -> Iterator[str]:
        """In the order in which they came."""
        yield from dict.fromkeys(key.contender for key in self.values)

    def settings(self) -> Iterator[str]:
        """In the order in which they came."""
        yield from dict.fromkeys(key.setting for key in self.values)
