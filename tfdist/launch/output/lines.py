"""Cuts a stream of bytes into lines, and shows progress bars as a terminal would."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class Line:
    """One line, as it would stand on a terminal.

    Args:
        text: Without its end.
        is_complete: False for the present state of a line that's still being rewritten.
    """

    text: str
    is_complete: bool = True


class LineCutter:
    """Takes bytes as they come, gives lines when they are complete.

    A progress bar rewrites its line by carriage returns (and backspaces, which Keras sends in
    front of them); only its latest state counts.
    """

    def __init__(self) -> None:
        # Incremental, since a read may end within a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._unfinished = ""

    def feed(self, received: bytes) -> list[Line]:
        """Returns the lines that `received` completes, and the state of a bar after it."""
        *complete, rest = (self._unfinished + self._decoder.decode(received)).split("\n")
        lines = [Line(_visible(text)) for text in complete]
        bar = "\r" in rest
        self._unfinished = _keep_latest(rest) if bar else rest
        if bar and _visible(rest):
            lines.append(Line(_visible(rest), is_complete=False))
        return lines

    def finish(self) -> list[Line]:
        """Returns what stands in a last line without an end."""
        rest, self._unfinished = self._unfinished, ""
        return [Line(_visible(rest))] if _visible(rest) else []


def strip_ansi(text: str) -> str:
    """Returns `text` without colours and cursor movements."""
    return _ANSI.sub("", text)


def _visible(text: str) -> str:
    return _latest(text).replace("\b", "").rstrip()


def _latest(text: str) -> str:
    states = [state for state in text.split("\r") if state.strip("\b")]
    return states[-1] if states else ""


def _keep_latest(text: str) -> str:
    # Bars of long epochs are rewritten thousands of times: don't keep each state. The last two
    # parts suffice: the newest state may still be incomplete or empty.
    return "\r".join(["", *text.split("\r")[-2:]])
