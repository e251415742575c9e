"""The files in which the tasks of this node note their steps, see `tfdist.cluster.progress`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tfdist.cluster.progress import ENVIRONMENT, TrainingStep, read_progress


class ProgressFiles:
    """A file for each task.

    Args:
        folder: of the files, and of nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin_attempt(self) -> None:
        """Forgets the steps of the attempt before."""
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):
                path.unlink()

    def environment(self, name: str) -> dict[str, str]:
        """What tells a task of its file."""
        return {ENVIRONMENT: str(self._path(name))}

    def step_of(self, name: str) -> TrainingStep | None:
        """The last step that a task began; None if it never said."""
        return read_progress(self._path(name))

    def _path(self, name: str) -> Path:
        return self._folder / name.replace("/", "-")
