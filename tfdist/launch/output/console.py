"""What a person sees: lines of all tasks with a prefix, and the chief's progress bar below them."""

from __future__ import annotations

import os
import shutil
from typing import TextIO

from tfdist.launch.output.lines import strip_ansi

# Readable on dark and light backgrounds; no red, which says "error".
_COLOURS = ("36", "35", "33", "34", "32", "96", "95", "94")
_CLEAR_LINE = "\r\x1b[K"


class Console:
    """Writes prefixed lines to stdout and stderr; not thread-safe.

    Args:
        out: For what tasks print to stdout.
        err: For what they print to stderr, and for the launcher's own words.
        names: All tasks of this node, to align the prefixes and choose the colours.
        live: The task whose progress bar is shown while it moves, on a terminal.
    """

    def __init__(self, out: TextIO, err: TextIO, names: list[str], live: str | None = None) -> None:
        self._out, self._err = out, err
        self._width = max(map(len, names), default=0) + 2
        self._colours = {n: _COLOURS[i % len(_COLOURS)] for i, n in enumerate(names)}
        self._live = live if out.isatty() else None
        self._bar = ""

    def line(self, name: str, text: str, *, is_error: bool = False) -> None:
        """Writes a complete line of a task."""
        stream = self._err if is_error else self._out
        self._erase_bar()
        if name == self._live and not is_error:
            self._bar = ""
        self._write(stream, self._with_prefix(stream, name, text) + "\n")
        self._draw_bar()

    def bar(self, name: str, text: str) -> None:
        """Redraws the progress bar, if `name` is the task whose bar is shown."""
        if name == self._live:
            self._erase_bar()
            self._bar = text
            self._draw_bar()

    def say(self, text: str) -> None:
        """Writes the launcher's own words."""
        self._erase_bar()
        self._bar = ""
        self._write(self._err, text + "\n")

    def _erase_bar(self) -> None:
        if self._bar:
            self._write(self._out, _CLEAR_LINE)

    def _draw_bar(self) -> None:
        if self._bar and self._live:
            shown = self._with_prefix(self._out, self._live, self._bar)
            columns = shutil.get_terminal_size().columns - 1
            # A line longer than the terminal wraps, and then can't be erased.
            plain = strip_ansi(shown)
            self._write(self._out, shown if len(plain) <= columns else plain[:columns])

    def _with_prefix(self, stream: TextIO, name: str, text: str) -> str:
        prefix = f"[{name}]".ljust(self._width)
        if not _has_colour(stream):
            return f"{prefix} {strip_ansi(text)}".rstrip()
        return f"\x1b[{self._colours.get(name, '36')}m{prefix}\x1b[0m {text}"

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        stream.write(text)
        stream.flush()


def _has_colour(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
