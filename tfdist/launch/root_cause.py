"""Which task failed first, and was not dragged down by another.

The first process to disappear is not always the guilty one: a task that raised may need a second to
tear TensorFlow down, and its peers, whose collective operations break at once, overtake it. So a
task's failure dates from its traceback, not from its exit, and a failure whose last words are those
of a broken peer or a stopped job counts only when there's no other.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping

from tfdist.cluster.exit_codes import PREEMPTED
from tfdist.launch.task_process import Ending

# What tfdist and TensorFlow 2.21 say in a task whose peer has gone.
_DRAGGED_DOWN = re.compile(
    r"TaskLostError|UnavailableError|AbortedError|CancelledError"
    r"|Collective ops is aborted"
    r"|Connection reset by peer|Connection refused|Socket closed|failed to connect to all addresses"
    r"|coordination service|CoordinationService|stopped sending heartbeats"
    r"|Broken pipe|WorkerPreemption"
    r"|RESTARTED|peer is down",
    re.IGNORECASE,
)
# What a task says that served a chief, see `tfdist.coordination.serving`.
_CHIEFS_FAULT = re.compile(r"the chief has failed|the chief at \S+ is gone")
_LAST_WORDS = 60


def describe(code: int) -> str:
    """Returns an exit status in words."""
    if code == PREEMPTED:
        return f"preempted, exit code {code}"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}"


def looks_dragged_down(ending: Ending) -> bool:
    """Whether a task's last words blame another task."""
    return blames_chief(ending) or _says(ending, _DRAGGED_DOWN)


def blames_chief(ending: Ending) -> bool:
    """Whether a task ended because the chief that it served had failed."""
    return _says(ending, _CHIEFS_FAULT)


def _says(ending: Ending, what: re.Pattern[str]) -> bool:
    return ending.code != 0 and what.search("\n".join(ending.words[-_LAST_WORDS:])) is not None


def first_failure(endings: Mapping[str, Ending]) -> str | None:
    """Returns the name of the task that failed first, or None if none did.

    Args:
        endings: How each task ended. Those that the supervisor stopped count only if their own
            traceback had begun before. A task that was preempted has not failed, and those have not
            that lost it as a peer.
    """
    failed = {name: e for name, e in endings.items() if e.code not in (0, PREEMPTED) and _by_itself(e)}
    own = {name: e for name, e in failed.items() if not looks_dragged_down(e)}
    # What saves because the supervisor ends it after a failure was not preempted before.
    if not own and was_preempted({name: e for name, e in endings.items() if e.stopped_at is None}):
        return None
    candidates = own or failed
    return min(candidates, key=lambda name: candidates[name].failed_at, default=None)


def was_preempted(endings: Mapping[str, Ending]) -> bool:
    """Whether a task says that its training state is saved, to be gone on with."""
    return any(ending.code == PREEMPTED for ending in endings.values())


def _by_itself(ending: Ending) -> bool:
    return ending.stopped_at is None or ending.failed_at < ending.stopped_at
