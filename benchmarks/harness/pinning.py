"""Which cores a process runs on."""

from __future__ import annotations

import os

from .contenders import Place


def cores() -> list[int]:
    """Those that this process may use."""
    return sorted(os.sched_getaffinity(0))


def one_core_each(count: int, *, ends: int = 1) -> tuple[Place, ...]:
    """Workers of one core each; more workers than cores share them alike.

    Args:
        count: of workers.
        ends: of the network, given to the workers in turns.
    """
    available = cores()
    return tuple(Place((available[index % len(available)],), end=index % ends) for index in range(count))


def all_cores() -> tuple[Place, ...]:
    """One process on all cores."""
    return (Place(tuple(cores())),)
