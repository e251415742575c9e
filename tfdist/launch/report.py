"""The closing words: which task failed first, and why."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping

from tfdist.launch.root_cause import describe, looks_dragged_down
from tfdist.launch.supervisor import Outcome
from tfdist.launch.task_process import Ending

_MOST_LINES = 80


def failure_report(outcome: Outcome, started_at: float, *, nnodes: int = 1) -> str:
    """Returns the report on a failed job; empty if it did not fail.

    Args:
        outcome: What the supervisor returned.
        started_at: When the job started, on the clock of time.monotonic.
        nnodes: Machines of the job: the guilty task may be on another.
    """
    name = outcome.first_failed
    if name is None:
        return ""
    first = outcome.endings[name]
    seconds = first.failed_at - started_at
    lines = [
        "-" * 80,
        f"{name} failed first: {describe(first.code)}, {seconds:.1f} s after the start.",
        *_words(first),
        *_others(name, outcome.endings),
        *_hints(name, first, outcome.endings, nnodes),
        _where_is_more(first),
    ]
    return "\n".join(lines)


def print_report(outcome: Outcome, started_at: float, *, nnodes: int = 1) -> None:
    """Writes the report of `failure_report`, if there is one."""
    report = failure_report(outcome, started_at, nnodes=nnodes)
    if report:
        print(report, file=sys.stderr, flush=True)


def _words(ending: Ending) -> list[str]:
    words = ending.words
    if not words:
        return ["It printed nothing to stderr."]
    cut = len(words) - _MOST_LINES
    head = [f"    ... {cut} lines before ..."] if cut > 0 else []
    what = "Its traceback:" if words[0].startswith("Traceback") else "Its last words on stderr:"
    return [what, *head, *(f"    {word}" for word in words[-_MOST_LINES:])]


def _others(name: str, endings: Mapping[str, Ending]) -> list[str]:
    said = [f"{other} ({_fate(ending)})" for other, ending in endings.items() if other != name]
    return [f"The others: {', '.join(said)}."] if said else []


def _fate(ending: Ending) -> str:
    if ending.stopped_at is not None:
        return "ended by the launcher"
    if looks_dragged_down(ending):
        return f"dragged down, {describe(ending.code)}"
    return describe(ending.code)


def _hints(name: str, first: Ending, endings: Mapping[str, Ending], nnodes: int) -> list[str]:
    if first.code == -signal.SIGKILL:
        return ["Hint: nothing in tfdist sent it this SIGKILL; is the machine out of memory?"]
    if not looks_dragged_down(first):
        return []
    done = [other for other, e in endings.items() if e.code == 0 and e.at <= first.at]
    if done:
        return [
            f"Hint: it lost a peer, and {', '.join(done)} had ended before, with exit code 0. "
            f"All tasks must run the same number of steps."
        ]
    if nnodes > 1:
        return ["Hint: it lost a peer; the task that failed first may be on another node."]
    return []


def _where_is_more(first: Ending) -> str:
    if first.log_path:
        return f"All it printed: {first.log_path}"
    return "To see all that each task printed: --log_dir=DIR or --verbose."
