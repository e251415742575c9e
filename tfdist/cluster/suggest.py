"""The nearest known name to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_of(name: str, known: Iterable[str]) -> str | None:
    """Returns the name of `known` that is most like `name`, or None when nothing is near."""
    found = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return found[0] if found else None
