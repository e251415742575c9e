"""SIGTERM as a flag that training looks at."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

#: A scheduler may signal all processes of a job, and the launcher among them pass it on: that is one notice.
SAME_NOTICE_SECONDS = 3.0
#: More than `struct sigaction` has on any system.
_ACTION_BYTES = 512


class SigtermFlag:
    """While installed, SIGTERM only sets a flag. If it comes again, later, it acts as if this were not installed.

    Attributes:
        is_set: whether SIGTERM has come.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._set_at = 0.0
        self._before: tuple[Any, bytes] | None = None
        self._has_caught = False

    def install(self) -> bool:
        """Begin; False where signals can't be caught, outside of the main thread, or are ignored."""
        if threading.current_thread() is not threading.main_thread():
            return False
        if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
            return False
        # Python doesn't know of handlers that libraries have installed, such as TensorFlow's.
        action = read_action()
        self._before = signal.signal(signal.SIGTERM, self._note), action
        self._has_caught = True
        return True

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not self.is_set:
            self.is_set, self._set_at = True, time.monotonic()
        elif time.monotonic() - self._set_at > SAME_NOTICE_SECONDS:
            self.put_back()
            os.kill(os.getpid(), signal.SIGTERM)

    def put_back(self) -> None:
        """What was there is there again, unless somebody else has taken over."""
        if self._before is None or signal.getsignal(signal.SIGTERM) != self._note:
            return
        (handler, action), self._before = self._before, None
        signal.signal(signal.SIGTERM, signal.SIG_DFL if handler is None else handler)
        ctypes.CDLL(None).sigaction(int(signal.SIGTERM), action, None)

    def ignore(self) -> None:
        """From now on nothing comes of it: another one must not change the code with which the process is to exit."""
        if self._has_caught:
            self._before = None
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


def read_action() -> bytes:
    """What the system does about SIGTERM in this process, as it keeps it."""
    action = ctypes.create_string_buffer(_ACTION_BYTES)
    ctypes.CDLL(None).sigaction(int(signal.SIGTERM), None, action)
    return action.raw
