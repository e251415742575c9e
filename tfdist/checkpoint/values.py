"""Whether state.json is what a checkpoint holds, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfdist.checkpoint.plain_values import from_json

FORMAT = 1

Test = Callable[[Any], bool]


def check_values(values: Any, arrays: dict[str, np.ndarray]) -> None:
    """See that all that `fit` goes on from is there, and of the right kind.

    Args:
        values: of state.json.
        arrays: of state.npz, which it refers to.

    Raises:
        ValueError: says what isn't.
    """
    if not isinstance(values, dict):
        raise ValueError(f"expected: names with values. Received: {type(values).__name__}")
    found = values.get("format")
    if found != FORMAT:
        raise ValueError(f"expected: format {FORMAT}, which this version of tfdist reads. Received: format={found!r}")
    for name, is_right in _RIGHT.items():
        if name not in values or not is_right(values[name]):
            received = repr(values.get(name, "nothing"))[:100]
            raise ValueError(f"expected: {name} as it is saved. Received: {name}={received}")
    for name in ("logs", "history", "callbacks"):
        try:
            decoded = from_json(values[name], arrays)
        except Exception as error:
            raise ValueError(f"expected: {name} as it is saved. Received: {type(error).__name__}: {error}") from error
        if not isinstance(decoded, dict):
            raise ValueError(f"expected: {name} by name. Received: {name}={decoded!r}"[:200])


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_text(value: Any) -> bool:
    return type(value) is str


def _list_of(is_right: Test) -> Test:
    return lambda value: type(value) is list and all(map(is_right, value))


def _tuple_of(*are_right: Test) -> Test:
    return lambda value: (
        type(value) is list
        and len(value) == len(are_right)
        and all(is_right(one) for is_right, one in zip(are_right, value, strict=True))
    )


def _with(**fields: Test) -> Test:
    return lambda value: (
        type(value) is dict and value.keys() == fields.keys() and all(fields[name](one) for name, one in value.items())
    )


def _by_name(value: Any) -> bool:
    return type(value) is dict


#: What else there is, such as versions, is for people.
_RIGHT: dict[str, Test] = {
    "place": _with(epoch=_is_count, step=_is_count, steps=_is_count),
    "data": _with(
        iterators=lambda value: _is_text(value) and set(value) <= set("01"), is_open=_is_flag, batches=_is_count
    ),
    "positions": _list_of(_tuple_of(_is_count, _is_count)),
    "workers": _is_count,
    "replicas": _is_count,
    "has_ended": _is_flag,
    "logs": _by_name,
    "history_epochs": _list_of(_is_count),
    "history": _by_name,
    "callbacks": lambda value: _by_name(value) and all(map(_by_name, value.values())),
    "model": _with(
        optimizer=lambda value: value is None or _is_text(value),
        variables=_list_of(_tuple_of(_is_text, _list_of(_is_count), _is_text)),
    ),
}
