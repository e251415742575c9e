"""Exit codes of tasks that mean something to the launcher and to schedulers."""

from __future__ import annotations

#: The task has saved its training because it was asked to end: the same command goes on from there (os.EX_TEMPFAIL).
PREEMPTED = 75
