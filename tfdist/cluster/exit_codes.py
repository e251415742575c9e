"""Exit codes of tasks that mean something to the launcher and to schedulers."""

from __future__ import annotations

# os.EX_TEMPFAIL: training state is saved; the same command goes on with it.
PREEMPTED = 75
