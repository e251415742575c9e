"""One thing that the doctor saw."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A fact about this machine; a problem if it has a fix.

    Args:
        subject: What was looked at, in a word or two.
        said: What was seen.
        fix: What to do about it; empty when all is well.
    """

    subject: str
    said: str
    fix: str = ""

    @property
    def is_problem(self) -> bool:
        """Whether something has to be done."""
        return bool(self.fix)
