"""The files of --log_dir: one for each start of a task."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


class LogFiles:
    """Names them `worker-0.log`, and `worker-0-1.log` for the same task started again.

    Args:
        folder: Where they are; None for no files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._starts: Counter[str] = Counter()

    def next(self, name: str) -> Path | None:
        """The file of a task that is about to start."""
        before = self._starts[name]
        self._starts[name] += 1
        if self._folder is None:
            return None
        return self._folder / f"{name.replace('/', '-')}{f'-{before}' if before else ''}.log"
