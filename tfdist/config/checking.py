"""Compares what a file or a command line says with the schema, before anything is merged."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from tfdist.cluster.suggest import nearest_of
from tfdist.config.schema import Part
from tfdist.errors import ConfigError

_NAMES = {int: "an integer", float: "a number", str: "text", bool: "true or false"}


def check(value: Any, kind: Any, key: str, source: str) -> Any:
    """Returns `value` as the schema has it, with `part: name` written out as `part: {name: name}`.

    Args:
        value: Of one key, as YAML gives it.
        kind: The type that the schema has for it.
        key: Its dotted name; "" for the whole file.
        source: "in" the file, or "on the command line".

    Raises:
        ConfigError: If a key is unknown or a value has another type.
    """
    if isinstance(value, str) and "${" in value:
        return value  # an interpolation: what it refers to is checked when it's put in
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return check(value, arguments[0], key, source)
    if kind is Part and isinstance(value, str):
        return {"name": value}
    if dataclasses.is_dataclass(kind):
        return _check_fields(value, kind, key, source)
    if origin is list:
        if not isinstance(value, list):
            raise wrong_type(key, "a list", value, source)
        return [check(item, arguments[0], f"{key}[{i}]", source) for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise wrong_type(key, "keys with values", value, source)
        return value
    return _check_plain(value, kind, key, source)


def unknown_key(key: str, name: str, known: Iterable[str], source: str) -> ConfigError:
    """Says which key is unknown, and which was probably meant."""
    choices = sorted(known)
    near = nearest_of(name, choices)
    hint = f"Did you mean {near!r}?" if near else "Remove it."
    return ConfigError(f"Keys must be among {', '.join(choices)}. Received: {_where(key, name)} {source}. {hint}")


def wrong_type(key: str, expected: str, value: Any, source: str) -> ConfigError:
    """Says which value has the wrong type."""
    return ConfigError(
        f"{key or 'The configuration'} must be {expected}. Received: {key or 'value'}={value!r} "
        f"({type(value).__name__}) {source}. Correct the value."
    )


def _check_fields(value: Any, kind: Any, key: str, source: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        what = "a name, or keys 'name' and 'options'" if kind is Part else "keys with values"
        raise wrong_type(key, what, value, source)
    kinds = typing.get_type_hints(kind)
    for name in value:
        if name not in kinds:
            raise unknown_key(key, str(name), kinds, source)
    return {name: check(item, kinds[name], _where(key, name), source) for name, item in value.items()}


def _check_plain(value: Any, kind: Any, key: str, source: str) -> Any:
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (isinstance(value, bool) and kind is not bool) or not isinstance(value, kind):
        raise wrong_type(key, _NAMES[kind], value, source)
    return value


def _where(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
