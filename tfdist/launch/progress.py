"""The files in which the tasks of this node note their steps, see `tfdist.cluster.progress`."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from types import TracebackType

from tfdist.cluster.progress import ENVIRONMENT, TrainingStep, read_progress


class ProgressFiles:
    """A folder of its own while entered, with a file for each task."""

    def __init__(self) -> None:
        self._made = tempfile.TemporaryDirectory(prefix="tfdist-launch-", ignore_cleanup_errors=True)
        self._folder = Path(self._made.name)

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

    def __enter__(self) -> ProgressFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._made.cleanup()
