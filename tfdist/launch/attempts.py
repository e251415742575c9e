"""Decides after each attempt whether there is another, and waits for it."""

from __future__ import annotations

import signal
import sys
import time

from tfdist.cluster.exit_codes import PREEMPTED
from tfdist.launch.progress import ProgressFiles
from tfdist.launch.repeated_failures import Failure, own_exception
from tfdist.launch.restarts import Backoff, RestartBudget
from tfdist.launch.signals import SignalInbox
from tfdist.launch.supervisor import Outcome


def say(text: str) -> None:
    """Writes the launcher's own words between attempts."""
    print(f"tfdist launch: {text}", file=sys.stderr, flush=True)


class Attempts:
    """What became of the attempts so far.

    Args:
        budget: The restarts that are left.
        inbox: A signal ends the wait for the next attempt.
        progress: In which step the tasks were.
    """

    def __init__(self, budget: RestartBudget, inbox: SignalInbox, progress: ProgressFiles) -> None:
        self._budget, self._inbox, self._progress = budget, inbox, progress
        self._backoff = Backoff()
        self._last_failure: Failure | None = None

    def exit_code_after(self, outcome: Outcome, lasted_seconds: float, *, may_be_chance: bool = False) -> int | None:
        """Returns the launch's exit code, or None when it's time for the next attempt.

        Args:
            outcome: Of the attempt that has ended.
            lasted_seconds: From its start to its end.
            may_be_chance: Whether a failure that is the last one again may not come a third time.
        """
        if outcome.interrupted_by is not None or outcome.exit_code == 0:
            return _final(outcome)
        if self._is_repeated(outcome) and not may_be_chance:
            say(self._why_not_again(outcome))
            return outcome.exit_code
        if not self._budget.take(time.monotonic()):
            return _final(outcome)
        seconds = self._backoff.take(lasted_seconds)
        why = "preempted tasks: " if outcome.is_preempted else ""
        say(f"{why}all tasks are started again ({self._budget}), after a wait of {seconds:g} s.")
        return self.wait(seconds, outcome)

    def wait(self, seconds: float, outcome: Outcome) -> int | None:
        """Returns None after `seconds`, or at once the launch's exit code if a signal ends it.

        Args:
            seconds: How long.
            outcome: Of the attempt before.
        """
        signum = self._inbox.wait(seconds)
        if signum is None:
            return None
        say(f"{signal.Signals(signum).name}: no task runs; the launch ends.")
        if signum == signal.SIGTERM and outcome.is_preempted:
            # A scheduler tells tasks and launcher alike, and the tasks were faster.
            return _final(outcome)
        return 128 + signum

    def _is_repeated(self, outcome: Outcome) -> bool:
        """Whether this failure is the last one again."""
        name = outcome.first_failed
        failure = None
        if name is not None:
            ending = outcome.endings[name]
            failure = own_exception(ending, ending.step or self._progress.step_of(name))
        is_repeated = failure is not None and failure == self._last_failure
        self._last_failure = failure
        return is_repeated

    def _why_not_again(self, outcome: Outcome) -> str:
        failure = self._last_failure
        how = "in the same way at the same step twice" if failure and failure.step else "in the same way twice"
        return (
            f"{outcome.first_failed} failed {how}: {failure}. Restarting will not help: repair what the traceback "
            f"says, then run the same command."
        )


def _final(outcome: Outcome) -> int:
    if outcome.is_preempted:
        say(f"preempted: training state is saved, and the same command goes on with it (exit code {PREEMPTED}).")
    return outcome.exit_code
