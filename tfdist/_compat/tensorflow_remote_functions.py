"""When the remote tasks are told of functions that nobody uses any more, and that the process ends.

Upstream: removing a function, which any garbage collection may do, and the end of the process send each task a message
and wait for its answer, with Python's lock held: if one is stopped or cut off, for ever.
Here: functions that nobody uses wait until `remove_unused` is called, and at the end of the process nothing is sent.
Seen in TensorFlow 2.21. Can go when upstream doesn't wait.
"""

from __future__ import annotations

import ctypes
import queue
from typing import Any

from tensorflow.python.eager import context

# Its `put` may be called by a garbage collection at any time.
_unused: queue.SimpleQueue[str] = queue.SimpleQueue()


def keep_unused() -> None:
    """From now on functions are removed by `remove_unused` only."""
    context.context().remove_function = _unused.put


def remove_unused() -> None:
    """Call when all tasks answer."""
    current: Any = context.context()
    while not _unused.empty():
        type(current).remove_function(current, _unused.get())


def say_nothing_more() -> None:
    """The process ends without a word to remote tasks."""
    current: Any = context.context()
    keep_unused()
    # Whoever holds the last reference to it closes the remote contexts: now that is nobody.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(current._handle))
