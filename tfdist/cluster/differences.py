"""What workers that compare facts say of the first one that differs."""

from __future__ import annotations

import collections
from collections.abc import Mapping


def first_difference(stated: Mapping[int, Mapping[str, str]], worker: int) -> tuple[str, str] | None:
    """The first fact that isn't the same on all workers, and who has what; None if all agree.

    Args:
        stated: each worker's facts by name.
        worker: whose own facts count, in their order.

    Example:
        >>> first_difference({0: {"seed": "1"}, 1: {"seed": "2"}}, worker=0)
        ("seed", "worker 0 has 1, worker 1 has 2")
    """
    for fact in stated[worker]:
        values = {one: stated[one].get(fact) for one in sorted(stated)}
        if len(set(values.values())) > 1:
            return fact, _described(values, worker)
    return None


def _described(values: Mapping[int, str | None], worker: int) -> str:
    """Who has something else than most, or, where there is no such majority, than this worker."""
    usual, count = collections.Counter(values.values()).most_common(1)[0]
    mine = usual if 2 * count > len(values) else values[worker]
    other = next(one for one, value in values.items() if value != mine)
    who = "most workers have" if 2 * count > len(values) else f"worker {worker} has"
    return f"{who} {mine}, worker {other} has {values[other]}"
