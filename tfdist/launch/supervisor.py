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
    | a task was preempted: it ended with    | gives the others PREEMPTED_SECONDS to save too,    |
    | exit_codes.PREEMPTED                   | then ends them; no task has failed                 |
    | the owner wants the attempt to end     | SIGTERM, and a minute to save; then SIGKILL        |
    | (`should_end`: hosts came or went)     |                                                    |
    | Ctrl-C, SIGTERM, SIGHUP                | passes it on, then harder; exits 128 + signal, or  |
    |                                        | PREEMPTED if all tasks saved on SIGTERM            |
    | the supervisor is killed (SIGKILL)     | the lifeline kills all, tfdist.cluster.lifeline    |
    | the reader of our output is gone       | kills all, exits 141 (128 + SIGPIPE)               |

    4. The outcome says which task failed first. Whether there is another attempt is decided in
       `tfdist.launch.attempts`: one leaves nothing behind, so `Supervisor(...).run()` again is the next.

    | how the attempt ended                  | what follows                                       |
    |----------------------------------------|----------------------------------------------------|
    | all tasks ended with 0                 | exit code 0                                        |
    | by a signal to the supervisor          | exit code as above                                 |
    | a task failed                          | all are started again, with ports of their own,    |
    |                                        | after 1, 2, 4, ... 60 s, while the budget lasts;   |
    |                                        | else the exit code of the task that failed first   |
    | a task raised what a task raised in    | nothing: it would again                            |
    | the attempt before, at the same step   |                                                    |
    | tasks were preempted                   | as for a failure; else exit code PREEMPTED         |
    | by its owner                           | the owner's decision, `tfdist.launch.elastic`      |
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from tfdist.cluster.exit_codes import PREEMPTED
from tfdist.cluster.lifeline import Lifeline
from tfdist.launch.log_files import LogFiles
from tfdist.launch.output.console import Console
from tfdist.launch.restarts import HelperRestarts, RestartBudget
from tfdist.launch.root_cause import blames_chief, describe, first_failure, looks_dragged_down, was_preempted
from tfdist.launch.shutdown import ON_CHANGE, ON_FAILURE, ON_INTERRUPT, ON_TERMINATE, Shutdown
from tfdist.launch.signals import SignalInbox
from tfdist.launch.task_process import Ending, TaskProcess, TaskSpec

FINISH_SECONDS = 15.0
VERDICT_SECONDS = 5.0
# Workers save together, but the chief, which writes, ends last.
PREEMPTED_SECONDS = 25.0
_TICK_SECONDS = 0.25
# Without pidfds (not Linux) an exit is noticed by asking.
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Args:
        exit_code: 0, or as a shell would see the task that failed first: 128 + N for signal N; PREEMPTED if none
            failed and training can go on; 128 + SIGTERM if the owner ended them and none says that it saved.
        first_failed: Its name, or None.
        endings: How each task ended, by name.
        interrupted_by: The signal that the supervisor was ended by, or None.
        ended_for: Why the owner ended the attempt, or None.
    """

    exit_code: int
    first_failed: str | None = None
    endings: dict[str, Ending] = field(default_factory=dict)
    interrupted_by: int | None = None
    ended_for: str | None = None

    @property
    def is_preempted(self) -> bool:
        """Whether training state is saved, and the same command goes on."""
        return self.first_failed is None and self.exit_code == PREEMPTED

    @property
    def was_ended(self) -> bool:
        """Whether it was by its owner's will that the job isn't done."""
        by_others = self.first_failed is not None or self.interrupted_by is not None
        return self.ended_for is not None and not by_others and self.exit_code != 0


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
        should_end: Asked several times a second; says why the attempt is to end though nothing failed, or None.
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
        should_end: Callable[[float], str | None] | None = None,
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
        self._should_end = should_end
        self._ended_for: str | None = None
        self._interrupted_by: int | None = None

    def run(self, inbox: SignalInbox | None = None) -> Outcome:
        """Starts the tasks and returns when all have ended.

        Args:
            inbox: Where signals come in for longer than this attempt; None for one of its own.
        """
        with contextlib.ExitStack() as stack:
            inbox = inbox or stack.enter_context(SignalInbox())
            stack.enter_context(contextlib.closing(self._selector))
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
        any_preempted = was_preempted({task.name: task.ending for task in self._tasks if task.ending})
        if self._end_at is None and self._shutdown is None:
            for task in self._running():
                task.tick(now)
        elif self._shutdown is None and self._end_at is not None and now >= self._end_at:
            self._shutdown = Shutdown(ON_TERMINATE if any_preempted else ON_FAILURE)
        if self._should_end and self._shutdown is None and (self._end_at is None or any_preempted):
            self._end_for(self._should_end(now))
        if self._shutdown:
            self._shutdown.tick(now, self._running_tasks())

    def _end_for(self, reason: str | None) -> None:
        if reason:
            self._ended_for = reason
            self._console.say(f"tfdist launch: {reason}: all tasks are told to save and to end.")
            self._shutdown = Shutdown(ON_CHANGE)

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
            if self._shutdown and signum != signal.SIGINT:
                # They have had a SIGTERM, and another one would kill those that are saving.
                self._shutdown.end_within(time.monotonic(), ON_TERMINATE[0].grace_seconds)
            else:
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
        elif ending.code == PREEMPTED:
            self._end_within(FINISH_SECONDS if task.name == self._coordinator else PREEMPTED_SECONDS)
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
        return self._end_at is None and not blames_chief(ending) and self._budget.take(time.monotonic())

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
            return Outcome(self._code_of_interrupted(endings), None, endings, self._interrupted_by)
        that_count = self._that_count(endings)
        name = first_failure(that_count)
        if name is not None:
            return Outcome(_shell_code(endings[name].code), name, endings, ended_for=self._ended_for)
        all_done = all(ending.code == 0 for ending in that_count.values())
        code = 0
        if was_preempted(that_count):
            code = PREEMPTED
        elif self._ended_for is not None and not all_done:
            code = 128 + signal.SIGTERM
        return Outcome(code, None, endings, ended_for=self._ended_for)

    def _code_of_interrupted(self, endings: dict[str, Ending]) -> int:
        signum = self._interrupted_by or 0
        all_saved = all(ending.code in (0, PREEMPTED) for ending in endings.values())
        if signum == signal.SIGTERM and all_saved and was_preempted(endings):
            return PREEMPTED
        return 128 + signum

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
