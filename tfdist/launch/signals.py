"""Signals as events of a select loop, instead of exceptions anywhere in the code."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalInbox:
    """While entered, SIGINT, SIGTERM and SIGHUP are collected; `fileno()` becomes readable.

    Outside the main thread, where Python can't catch signals, it stays empty.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        self._before: dict[int, Any] = {}

    def fileno(self) -> int:
        """For `select`."""
        return self._read_end

    def take(self) -> list[int]:
        """Returns the signals since the last call."""
        with contextlib.suppress(BlockingIOError):
            return list(os.read(self._read_end, 256))
        return []

    def wait(self, seconds: float) -> int | None:
        """Returns the first signal within `seconds`, or None if there's none."""
        ready, _, _ = select.select([self], [], [], seconds)
        return next(iter(self.take()), None) if ready else None

    def __enter__(self) -> SignalInbox:
        if threading.current_thread() is threading.main_thread():
            for signum in _CAUGHT:
                if signal.getsignal(signum) != signal.SIG_IGN:  # nohup, a shell's background job
                    self._before[signum] = signal.signal(signum, self._put)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        os.close(self._read_end)
        os.close(self._write_end)

    def _put(self, signum: int, frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_end, bytes([signum]))
