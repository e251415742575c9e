"""One write at a time, behind training's back."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tfdist.errors import CheckpointError


class BackgroundWriter:
    """Runs writes in a thread, which the process ends only after, and keeps what went wrong until it is asked for."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, write: Callable[[], object]) -> None:
        """Begin a write; `wait` for the one before it first."""
        self._thread = threading.Thread(target=self._run, args=(write,), name="tfdist-checkpoint")
        self._thread.start()

    def _run(self, write: Callable[[], object]) -> None:
        try:
            write()
        except BaseException as error:
            self._error = error

    @property
    def has_failed(self) -> bool:
        """Whether `wait` would raise; doesn't wait."""
        return self._error is not None

    def wait(self) -> None:
        """Return when nothing is being written.

        Raises:
            CheckpointError: what the last write ended with, once.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if isinstance(error, CheckpointError):
            raise error
        if error is not None:
            raise CheckpointError(
                "Expected: a checkpoint that can be written. "
                f"Received: {type(error).__name__}: {error}, when it was put into files. See the cause above."
            ) from error
