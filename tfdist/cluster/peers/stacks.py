"""What the threads of this process do, as text."""

from __future__ import annotations

import faulthandler
import os
import tempfile

#: Enough for some dozens of threads; a stack is answered in one message.
_MOST_CHARACTERS = 100_000


def python_stacks() -> str:
    """The Python stacks of all threads of this process, most recent call first."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0, os.SEEK_SET)
        return file.read().decode(errors="replace")[:_MOST_CHARACTERS]
