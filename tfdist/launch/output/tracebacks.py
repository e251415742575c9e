"""Keeps a task's last traceback back until it's clear whether the task dies of it.

When one task fails, collective operations fail in all the others, and N tracebacks hide the one
that matters. So a traceback isn't shown at once. If the task ends in failure, the closing report
shows it, or not. If the task goes on (prints to stdout, or lives for seconds), the traceback was
only a message, and is shown as one.
"""

from __future__ import annotations

import re

_CPP = r"0000 00:00:\d+\.\d+ +\d+ "
_START = re.compile(
    r"(?:\s*\+ (?:Exception Group )?)?Traceback \(most recent call last\):"
    r"|Fatal Python error: "
    # The first words of a task whose peer has gone, or of one that TensorFlow aborts.
    rf"|E{_CPP}(?:ring_alg|base_collective_executor|coordination_service\w*)\.cc"
    rf"|F{_CPP}"
)
_HOLD_SECONDS = 5.0


class TracebackHold:
    """The lines that one task printed to stderr since its last traceback began."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.began_at: float | None = None

    def take(self, line: str, now: float) -> bool:
        """Returns whether `line` is kept back; if not, the caller shows it."""
        if self.began_at is None:
            if not _START.match(line):
                return False
            self.began_at = now
        self.lines.append(line)
        return True

    def is_stale(self, now: float) -> bool:
        """Whether the task has gone on living for a while after the traceback."""
        return self.began_at is not None and now - self.began_at > _HOLD_SECONDS

    def release(self) -> list[str]:
        """Returns the lines kept back, to be shown, and forgets them."""
        lines, self.lines, self.began_at = self.lines, [], None
        return lines
