"""Lines that say which run is going on, for how many seconds, and at which step it is."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

_LOOK_EVERY_SECONDS = 0.5
_WIDTH = 44
_STEP = re.compile(r'"step": (\d+)')
_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Writes one line a phase, at its end; on a terminal the line counts while it goes on.

    Args:
        stream: where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, text: str) -> None:
        """Write a line."""
        self._write(text + "\n")

    @contextlib.contextmanager
    def phase(self, title: str, folders: Sequence[Path], steps: int) -> Iterator[None]:
        """Show a phase while it is entered.

        Args:
            title: what is going on.
            folders: of its runs, where their recordings grow.
            steps: how many each records.
        """
        started, over = time.monotonic(), threading.Event()

        def line() -> str:
            done = max(map(recorded_steps, folders))
            return f"  {title:<{_WIDTH}} {done:>4} of {steps} steps {time.monotonic() - started:7.1f} s"

        def count() -> None:
            while not over.wait(_LOOK_EVERY_SECONDS):
                self._write(_CLEAR_LINE + line())

        counter = threading.Thread(target=count, daemon=True)
        if self._stream.isatty():
            counter.start()
        try:
            yield
        finally:
            over.set()
            if counter.ident is not None:
                counter.join()
                self._write(_CLEAR_LINE)
            self.say(line())

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def recorded_steps(folder: Path) -> int:
    """Training steps that worker 0 of a run has recorded."""
    path = folder / "worker-0" / "records.jsonl"
    try:
        found = _STEP.findall(path.read_text(encoding="utf-8"))
    except OSError:
        return 0
    return int(found[-1]) if found else 0
