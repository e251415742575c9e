"""Command lines of options and patterns of files."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from absl import flags

from tfdist.cli.flags import UsageError, parse


def parse_patterns(values: flags.FlagValues, action: str, argv: list[str]) -> list[str]:
    """Sets `values`, returns the patterns.

    Raises:
        UsageError: If there is no pattern, or an option is wrong.
    """
    patterns = parse(values, f"data {action}", argv, options_anywhere=True)
    if not patterns:
        raise UsageError(f"A pattern must be given. Write for example: tfdist data {action} 'data/train-*.tfrecord'")
    return patterns


def required(values: flags.FlagValues, name: str, example: str) -> str:
    """Returns the value of an option that must be given.

    Raises:
        UsageError: If it isn't.
    """
    value = values[name].value
    if value is None:
        raise UsageError(f"--{name} must be given. Write for example --{name}={example}")
    return str(value)


def show(lines: Iterable[str]) -> None:
    """Prints lines as they come."""
    for line in lines:
        print(line, flush=True)


def shows_progress() -> bool:
    """Whether somebody is there to see a bar."""
    return sys.stderr.isatty()
