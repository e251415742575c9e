"""Options of a benchmark: the fields of its dataclass as flags of the command."""

from __future__ import annotations

import dataclasses
from typing import Any

from absl import flags

_DEFINE: dict[type, Any] = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    bool: flags.DEFINE_boolean,
    tuple: flags.DEFINE_list,
}


def option(default: Any, *, quick: Any, help: str) -> Any:
    """A field of an options class.

    Args:
        default: its value.
        quick: under --quick.
        help: what the command says of it.
    """
    return dataclasses.field(default=default, metadata={"quick": quick, "help": help})


def define(options: type, values: flags.FlagValues) -> None:
    """Add a flag for each field."""
    for field in dataclasses.fields(options):
        default, quick = _text(field.default), _text(field.metadata["quick"])
        said = f"{field.metadata['help']} Default: {default}{'' if quick == default else f', with --quick {quick}'}."
        _DEFINE[type(field.default)](field.name, None, said, flag_values=values)


def read(options: type, values: flags.FlagValues, *, quick: bool) -> Any:
    """The options that were asked for.

    Raises:
        ValueError: one of them is not what it must be.
    """
    found = {}
    for field in dataclasses.fields(options):
        given = values[field.name].value
        if given is None:
            found[field.name] = field.metadata["quick"] if quick else field.default
        elif isinstance(field.default, tuple):
            found[field.name] = _elements(field.name, given, type(field.default[0]))
        else:
            found[field.name] = given
    for name, value in found.items():
        if any(isinstance(one, (int, float)) and one <= 0 for one in (value if isinstance(value, tuple) else [value])):
            raise ValueError(f"--{name}: Expected: numbers above 0. Received: {name}={_text(value)}.")
    return options(**found)


def _elements(name: str, given: list[str], kind: type) -> tuple[Any, ...]:
    try:
        return tuple(map(kind, given))
    except ValueError as error:
        expected = "whole numbers" if kind is int else "numbers"
        said = f"Expected: {expected} with commas between them. Received: {name}={','.join(given)}."
        raise ValueError(f"--{name}: {said}") from error


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
