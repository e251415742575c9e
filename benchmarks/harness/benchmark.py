"""What a module of suite/ says of its benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .contenders import Case
from .requirements import Pythons
from .samples import Quantity, Samples

#: What the processes of a case answered -> numbers by quantity.
Reading = Callable[[Case, list[dict[str, Any]]], Mapping[str, float | None]]


def first_answer(case: Case, answers: list[dict[str, Any]]) -> Mapping[str, float | None]:
    """What the first process measured."""
    return answers[0]


def no_more(samples: Samples) -> None:
    """Nothing follows from what was measured."""


def no_remarks(samples: Samples) -> list[str]:
    """Nothing to say."""
    return []


@dataclass(frozen=True)
class Benchmark:
    """Contenders, and what is asked of them.

    Args:
        name: after `tfdist bench`.
        measures: one line.
        takes: how long, with the contenders that this Python has.
        needs: beside TensorFlow.
        options: a frozen dataclass whose fields are options of the command; `metadata` may have "quick", the value
            under --quick, and "help".
        cases: from options.
        quantities: what is printed of what was measured.
        baseline: name of the contender that others are compared with.
        rounds: without --rounds.
        is_fresh: whether each measurement has processes of its own.
        timeout_seconds: of one measurement.
        read: gives numbers.
        derive: adds to the samples what follows from them.
        remarks: lines below the table.
    """

    name: str
    measures: str
    takes: str
    needs: str
    options: type
    cases: Callable[[Any, Pythons], Sequence[Case]]
    quantities: tuple[Quantity, ...]
    baseline: str
    rounds: int = 5
    is_fresh: bool = False
    timeout_seconds: float = 300.0
    read: Reading = first_answer
    derive: Callable[[Samples], None] = no_more
    remarks: Callable[[Samples], list[str]] = no_remarks
