"""A cluster that several tests look at runs once, also if it fails."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Result = TypeVar("Result")


def once(function: Callable[..., Result]) -> Callable[..., Result]:
    """Like `functools.cache`, which would try again what has failed, and wait for its time-out again."""
    ends: dict[Hashable, tuple[Any, BaseException | None]] = {}

    @functools.wraps(function)
    def call(*arguments: Hashable) -> Result:
        if arguments not in ends:
            try:
                ends[arguments] = function(*arguments), None
            except BaseException as error:
                ends[arguments] = None, error
        result, failure = ends[arguments]
        if failure is not None:
            raise failure
        return result

    return call
