"""What is said of the numbers of several rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Of some numbers.

    Args:
        median: of them; of an even number of them the mean of the two in the middle.
        low: the least.
        high: the greatest.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Of at least one number."""
        return cls(statistics.median(values), min(values), max(values))


def ratios(values: Mapping[int, float], baseline: Mapping[int, float]) -> list[float]:
    """One number over the other in each round that has both: other work slows both down alike.

    Args:
        values: by round.
        baseline: by round, not 0.
    """
    return [values[number] / baseline[number] for number in sorted(values.keys() & baseline.keys())]
