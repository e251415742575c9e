"""Which training step a task is in: a small file that the task writes and the launcher reads.

The launcher names the file in ENVIRONMENT. A task that fails at the same step in each attempt can be told
from one that fails now and then only by this, since a failure itself seldom says when it came.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = "TFDIST_PROGRESS_FILE"
# Of one length, so that each step overwrites the one before.
_FORMAT = "{:12d} {:12d}\n"


@dataclass(frozen=True)
class TrainingStep:
    """Where training is.

    Args:
        epoch: As Keras counts, from 0.
        batch: Of the epoch, from 0.
    """

    epoch: int
    batch: int

    def __str__(self) -> str:
        return f"epoch {self.epoch}, batch {self.batch}, counted from 0"


class ProgressFile:
    """The file of one task, open for writing.

    Args:
        path: Of the file, in a folder that is there.

    Raises:
        OSError: If it can't be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, step: TrainingStep) -> None:
        """Notes a step; training goes on if that fails."""
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, _FORMAT.format(step.epoch, step.batch).encode(), 0)

    def close(self) -> None:
        """Closes the file, which stays."""
        os.close(self._fd)


def read_progress(path: str | os.PathLike[str]) -> TrainingStep | None:
    """Returns the step that a task noted last; None if it noted none."""
    try:
        return parse_progress(Path(path).read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        return None


def parse_progress(text: str) -> TrainingStep | None:
    """Returns the step that a file's text says; None if it says none."""
    try:
        epoch, batch = map(int, text.split())
    except ValueError:
        return None
    return TrainingStep(epoch, batch)
