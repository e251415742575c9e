"""Python values as JSON beside arrays by name; nothing else is ever read, so a file can't run code."""

from __future__ import annotations

from typing import Any

import numpy as np

_ARRAY, _TUPLE, _ITEMS = "__array__", "__tuple__", "__items__"
_MARKS = (_ARRAY, _TUPLE, _ITEMS)


def to_json(value: Any, arrays: dict[str, np.ndarray], name: str) -> Any:
    """What `json.dumps` takes.

    Args:
        value: None, bools, numbers, text, arrays, and lists, tuples and dicts of them.
        arrays: gets the arrays, by names that begin with `name`.
        name: of the value.

    Raises:
        TypeError: the value is, or holds, something else.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        arrays[name] = np.asarray(value)
        return {_ARRAY: name}
    if type(value) in (list, tuple):
        parts = [to_json(part, arrays, f"{name}/{index}") for index, part in enumerate(value)]
        return parts if type(value) is list else {_TUPLE: parts}
    if type(value) is dict:
        if all(type(key) is str and key not in _MARKS for key in value):
            return {key: to_json(part, arrays, f"{name}/{key}") for key, part in value.items()}
        return {_ITEMS: to_json([list(item) for item in value.items()], arrays, name)}
    raise TypeError(f"{name} is {type(value).__name__}")


def from_json(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What `to_json` was given."""
    if isinstance(value, list):
        return [from_json(part, arrays) for part in value]
    if not isinstance(value, dict):
        return value
    if _ARRAY in value:
        array = arrays[value[_ARRAY]]
        return array if array.ndim else array[()]
    if _TUPLE in value:
        return tuple(from_json(value[_TUPLE], arrays))
    if _ITEMS in value:
        return dict(from_json(value[_ITEMS], arrays))
    return {key: from_json(part, arrays) for key, part in value.items()}
