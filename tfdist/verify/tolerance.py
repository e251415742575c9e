"""How far two runs may be apart, and whether what is more is rounding or an error.

Two runs that add up the same numbers in another order differ by rounding. What is left of it depends on what it is
compared with, so a variable's difference is measured against how far training has moved it:

    allowed(v) = STORAGE * eps * max|v| + relative * max(moved(v), FLOOR * largest move of any variable)

The first term is what storing a weight rounds off, the second a relative error of the gradients. A log (the loss, a
metric) may differ by `relative` times its largest value in the run.

What is beyond that in float32 is an error at once if it came suddenly (`is_sudden`): most variables are off by more
than SUDDEN of their move, and were not in the step before; or the first loss, which no update has touched yet, is off
by SUDDEN. Rounding grows from step to step, seldom tenfold. What is neither within the tolerance nor sudden is
ambiguous (Adam, say, makes steps of full size from gradients that are zero but for rounding), and both runs are made
again in float64: rounding shrinks by 2^29, an error does not shrink at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Units in the last place that a stored weight may be off.
STORAGE = 8
#: Variables whose gradients are zero but for rounding move by rounding only: compare them with what others move.
FLOOR = 1e-2
#: Parts of their move by which most variables are off when there is an error in the gradients.
SUDDEN = 1e-2


@dataclass(frozen=True)
class Tolerance:
    """What two runs may differ by.

    Args:
        eps: distance of 1.0 from the next larger number.
        relative: relative error of gradients and logs.
    """

    eps: float
    relative: float

    def of_variable(self, largest: float, moved: float, largest_move: float) -> float:
        """The difference that a variable may have.

        Args:
            largest: max|v|.
            moved: max|v - v before the first step|.
            largest_move: the largest `moved` of all variables.
        """
        return STORAGE * self.eps * largest + self.relative * max(moved, FLOOR * largest_move)

    def of_log(self, largest: float) -> float:
        """The difference that a log may have whose largest value in the run is given."""
        return self.relative * largest


# Sums of float32 that were added in other orders are apart by 1e-7 to 1e-5 of the largest; measured over the cases of
# docs/matrix.md and the scripts in tests/verify.
FLOAT32 = Tolerance(2.0**-23, 1e-4)
# Float32's rounding shrinks to 1e-13; more, up to 1e-6, is left where the script itself casts something to float32.
FLOAT64 = Tolerance(2.0**-52, 1e-5)


def is_sudden(medians: Sequence[float], step: int) -> bool:
    """Whether most variables go wrong at once.

    Args:
        medians: for each step compared, the median over variables of difference / move.
        step: position of the first step that is out of tolerance.
    """
    before = medians[step - 1] if step else 0.0
    return medians[step] >= SUDDEN and before <= FLOAT32.relative


def grows_like_rounding(excesses: Sequence[float]) -> bool:
    """Whether differences begin far below the tolerance, and grow less than tenfold a step.

    Args:
        excesses: for each step compared, the largest difference of a variable in units of what is allowed.
    """
    begin = 0.1
    first = next((excess for excess in excesses if excess > 0), 0.0)
    return first <= begin and all(after <= 10 * max(before, begin) for before, after in itertools.pairwise(excesses))


def difference(received: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference; infinite where only one of both is a number."""
    if received.shape != expected.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):  # inf - inf
        apart = np.abs(received.astype(np.float64) - expected.astype(np.float64))
    same = (received == expected) | (np.isnan(received) & np.isnan(expected))
    apart = np.where(same, 0.0, apart)
    return float(np.max(np.where(np.isnan(apart), np.inf, apart), initial=0.0))


def largest(value: np.ndarray) -> float:
    """max|v|, of what is finite."""
    return float(np.max(np.abs(value), initial=0.0, where=np.isfinite(value)))
