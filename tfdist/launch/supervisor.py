"""Watches the tasks of one node from start to end.

Words: a *task* is one process of the job on this node. An *attempt* is all of them, started
together: collective operations tie them, so one can't be started again without the others. Where
nothing ties a task to the others, as the workers of a job with ps tasks, it is *replaceable*.

Order of events in an attempt
    1. Every task is started with its own TF_CONFIG.
    2. Their output is shown as it comes.
    3. A task ends. What follows depends on how:

    | what happened                          | what the supervisor does                           |
    |----------------------------------------|----------------------------------------------------|
    | a task ended with 0                    | waits for the others                               |
    | the chief of a job with ps ended with 0| gives the rest FINISH_SECONDS, then ends them      |
    | a task failed                          | ends the others: SIGTERM, SIGKILL                  |
    | a replaceable task failed              | starts it again while the budget lasts; else, or   |
    |                                        | if the chief made it fail, as for any other task   |
    | a task failed, blaming a peer          | gives the peer VERDICT_SECONDS to fail, ends all   |
    | a task raised, but doesn't exit        | as above, when a peer fails: its failure is older  |
    | a helper ended (a data worker, say)    | starts it again; if it ends again and again, as    |
    |                                        | for a task that failed                             |
    | Ctrl-C, SIGTERM, SIGHUP                | passes it on, then harder; exits 128 + signal      |
    | the supervisor is killed (SIGKILL)     | the lifeline kills all, tfdist.cluster.lifeline    |
    | the reader of our output is gone       | kills all, exits 141 (128 + SIGPIPE)               |

    4. The outcome says which task failed first. Whether there is another attempt is the caller's
       decision: one leaves nothing behind, so calling `Supervisor(...).run()` again is the next.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tfdist.cluster.lifeline import Lifeline
from tfdist.launch.log_files import LogFiles
from tfdist.launch.output.console import Console
from tfdist.launch.restarts import HelperRestarts, RestartBudget
from tfdist.launch.root_cause import blames_chief, describe, first_failure, looks_dragged_down
from tfdist.launch.shutdown import ON_FAILURE, ON_INTERRUPT, ON_TERMINATE, Shutdown
from tfdist.launch.signals import SignalInbox
from tfdist.launch.task_process import Ending, TaskProcess, TaskSpec

FINISH_SECONDS = 15.0
VERDICT_SECONDS = 5.0
_TICK_SECONDS = 0.25
# Without pidfds (not Linux) an exit is noticed by asking.
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Args:
        exit_code: 0, or as a shell would see the task that failed first: 128 + N for signal N.
        first_failed: Its name, or None.
        endings: How each task ended, by name.
        interrupted_by: The signal that the supervisor was ended by, or None.
    """

    exit_code: int
    first_failed: str | None = None
    endings: dict[str, Ending] = field(default_factory=dict)
    interrupted_by: int | None = None


class Supervisor:
    """Runs one attempt of this node's tasks.

    Args:
        specs: The tasks to start.
        console: Shows their output.
        helpers: Processes that work for the tasks: started again if they end, and ended behind the tasks.
        coordinator: The task at whose success the job is done, though others still serve.
        replaceable: Tasks that may be started again without the others.
        budget: How often; none by default.
        logs: Where all that they print is written; nowhere by default.
        verbose: Show TensorFlow's messages and all tracebacks as they come.
    """

    def __init__(
        self,
        specs: Sequence[TaskSpec],
        console: Console,
        *,
        helpers: Sequence[TaskSpec] = (),
        coordinator: str | None = None,
        replaceable: Collection[str] = (),
        budget: RestartBudget | None = None,
        logs: LogFiles | None = None,
        verbose: bool = False,
    ) -> None:
        self._specs, self._console = [*helpers, *specs], console
        self._helpers, self._helper_restarts = {helper.name for helper in helpers}, HelperRestarts()
        self._coordinator = coordinator
        self._replaceable, self._budget = replaceable, budget or RestartBudget()
        self._logs, self._verbose = logs or LogFiles(), verbose
        self._tasks: list[TaskProcess] = []
        self._selector = selectors.DefaultSelector()
        self._shutdown: Shutdown | None = None
        self._end_at: float | None = None
        self._interrupted_by: int | None = None

    def run(self) -> Outcome:
        """Starts the tasks and returns when all have ended."""
        with SignalInbox() as inbox, contextlib.closing(self._selector):
            self._selector.register(inbox, selectors.EVENT_READ, self._on_signal)
            lifeline = Lifeline()
            try:
                for spec in self._specs:
                    self._start(spec, lifeline)
                while self._running_tasks():
                    self._step(lifeline)
            finally:
                self._kill_all()
                lifeline.close()
        return self._outcome()

    def _start(self, spec: TaskSpec, lifeline: Lifeline) -> None:
        log_path = self._logs.next(spec.name)
        task = TaskProcess(spec, lifeline, self._console, log_path=log_path, verbose=self._verbose)
        self._tasks.append(task)
        for fd in task.fds:
            self._selector.register(fd, selectors.EVENT_READ, (task, fd))
        if (exit_fd := task.exit_fd) is not None:
            self._selector.register(exit_fd, selectors.EVENT_READ, None)

    def _running(self) -> list[TaskProcess]:
        return [task for task in self._tasks if task.ending is None]

    def _running_tasks(self) -> list[TaskProcess]:
        return [task for task in self._running() if task.name not in self._helpers]

    def _step(self, lifeline: Lifeline) -> None:
        can_sleep = all(task.exit_fd is not None for task in self._running())
        for key, _ in self._selector.select(_TICK_SECONDS if can_sleep else _POLL_SECONDS):
            self._handle(key)
        for task in self._running():
            if task.has_exited():
                self._on_exit(task, lifeline)
        self._tick(time.monotonic())

    def _tick(self, now: float) -> None:
        if self._end_at is None and self._shutdown is None:
            for task in self._running():
                task.tick(now)
        elif self._shutdown is None and self._end_at is not None and now >= self._end_at:
            self._shutdown = Shutdown(ON_FAILURE)
        if self._shutdown:
            self._shutdown.tick(now, self._running_tasks())

    def _handle(self, key: selectors.SelectorKey) -> None:
        if callable(key.data):
            key.data(key.fileobj)
        elif key.data is not None:
            task, fd = key.data
            if not task.read(fd):
                self._selector.unregister(fd)

    def _on_signal(self, inbox: SignalInbox) -> None:
        for signum in inbox.take():
            if self._interrupted_by is not None and self._shutdown:
                self._shutdown.hurry()
                continue
            self._interrupted_by = signum
            name = signal.Signals(signum).name
            self._console.say(f"tfdist launch: {name}: ending all tasks (again: at once).")
            self._shutdown = Shutdown(ON_INTERRUPT if signum == signal.SIGINT else ON_TERMINATE)

    def _on_exit(self, task: TaskProcess, lifeline: Lifeline) -> None:
        for fd in (*task.fds, task.exit_fd):
            if fd is not None and fd in self._selector.get_map():
                self._selector.unregister(fd)
        ending = task.reap()
        if self._shutdown:
            return
        if self._may_start_again(task, ending):
            self._start_again(task, ending, lifeline)
        elif ending.code != 0:
            blames_peer = looks_dragged_down(ending) or self._a_peer_seems_to_die()
            self._end_within(VERDICT_SECONDS if blames_peer else 0.0)
        elif task.name == self._coordinator:
            self._end_within(FINISH_SECONDS)

    def _may_start_again(self, task: TaskProcess, ending: Ending) -> bool:
        if task.name in self._helpers:
            return self._helper_restarts.may_start_again(task.name, time.monotonic())
        if task.name not in self._replaceable or ending.code == 0:
            return False
        # When the job is about to end, for whatever reason, that is why this task ended too.
        return self._end_at is None and not blames_chief(ending) and self._budget.take()

    def _start_again(self, task: TaskProcess, ending: Ending, lifeline: Lifeline) -> None:
        is_helper = task.name in self._helpers
        count = "" if is_helper else f" ({self._budget})"
        task.show_held()
        self._console.say(f"tfdist launch: {task.name}: {describe(ending.code)}; it is started again{count}.")
        self._tasks.remove(task)
        self._start(task.spec, lifeline)

    def _a_peer_seems_to_die(self) -> bool:
        return any(task.seems_to_die for task in self._running())

    def _end_within(self, seconds: float) -> None:
        end_at = time.monotonic() + seconds
        self._end_at = end_at if self._end_at is None else min(self._end_at, end_at)

    def _kill_all(self) -> None:
        for task in self._running():
            task.signal(signal.SIGKILL)
            with contextlib.suppress(BrokenPipeError):
                os.waitid(os.P_PID, task.pid, os.WEXITED | os.WNOWAIT)
                task.reap()

    def _outcome(self) -> Outcome:
        # Helpers were killed when the tasks were done.
        endings = {task.name: task.ending for task in self._tasks if task.ending and not self._was_killed(task)}
        if self._interrupted_by is not None:
            return Outcome(128 + self._interrupted_by, None, endings, self._interrupted_by)
        name = first_failure(self._that_count(endings))
        if name is None:
            return Outcome(0, None, endings)
        return Outcome(_shell_code(endings[name].code), name, endings)

    def _was_killed(self, task: TaskProcess) -> bool:
        return task.name in self._helpers and task.ending is not None and task.ending.stopped_at is not None

    def _that_count(self, endings: dict[str, Ending]) -> dict[str, Ending]:
        """Leaves out what came after the coordinator's success: those that served it lost it."""
        done = endings.get(self._coordinator or "")
        if done is None or done.code != 0:
            return endings
        return {name: ending for name, ending in endings.items() if ending.at <= done.at}


def _shell_code(code: int) -> int:
    return 128 - code if code < 0 else code
