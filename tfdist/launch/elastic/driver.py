"""Runs the attempts of an elastic job, each with the hosts that are there; see the package's docstring."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence

from tfdist.cluster.lifeline import Lifeline
from tfdist.launch.attempts import Attempts, say
from tfdist.launch.elastic.discovery import Discovery, HostScript, HostsFile, Source
from tfdist.launch.elastic.hosts import Host
from tfdist.launch.elastic.members import HostRecords, Members, choose
from tfdist.launch.elastic.options import ElasticOptions
from tfdist.launch.elastic.workers import workers_of
from tfdist.launch.log_files import LogFiles
from tfdist.launch.options import LaunchOptions
from tfdist.launch.output.console import Console
from tfdist.launch.progress import ProgressFiles
from tfdist.launch.report import print_report
from tfdist.launch.restarts import RestartBudget
from tfdist.launch.root_cause import looks_dragged_down
from tfdist.launch.signals import SignalInbox
from tfdist.launch.supervisor import Outcome, Supervisor

_LOOK_SECONDS = 0.1
#: What a job ends with that has too few hosts, or too many changes of them.
FAILED = 1


class _JobEnds(Exception):
    """The job has ended.

    Args:
        exit_code: Of the launch.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class ElasticDriver:
    """Runs a job to its end.

    Args:
        command: Program and arguments, the same for all workers.
        options: What is asked of the launch.
        elastic: And of its hosts.
        inbox: Where signals come in.
        progress: In which step the tasks are.
    """

    def __init__(
        self,
        command: Sequence[str],
        options: LaunchOptions,
        elastic: ElasticOptions,
        inbox: SignalInbox,
        progress: ProgressFiles,
    ) -> None:
        self._command, self._options, self._elastic = command, options, elastic
        self._inbox, self._progress = inbox, progress
        self._budget = RestartBudget(options.most_restarts, options.restart_window_seconds)
        self._attempts = Attempts(self._budget, inbox, progress)
        self._records = HostRecords(self._elastic.host_failures, self._elastic.host_cooldown_seconds)
        self._logs = LogFiles(options.log_dir)
        self._members, self._changes = Members(), 0
        self._started_at, self._more_since = 0.0, float("inf")
        self._failed_host = ""
        self._last = Outcome(0)

    def run(self) -> int:
        """Returns the launch's exit code.

        Raises:
            LaunchError: The list of hosts can't be read at the start, or hosts can't be used together.
        """
        with contextlib.ExitStack() as stack:
            lifeline = Lifeline()
            stack.callback(lifeline.close)
            source = _source(self._elastic, lifeline)
            stack.callback(source.close)
            self._discovery = Discovery(source, self._elastic.discovery_seconds)
            try:
                while True:
                    self._use(self._next_members())
                    self._judge(self._attempt())
            except _JobEnds as end:
                return end.exit_code

    # Members.

    def _hosts(self, now: float) -> list[Host]:
        self._discovery.poll(now)
        return self._records.usable(self._discovery.hosts, now)

    def _next_members(self) -> Members:
        """Waits until there are enough."""
        began = time.monotonic()
        self._discovery.hurry()
        is_waiting = False
        while True:
            now = time.monotonic()
            chosen = choose(self._hosts(now), self._elastic.max_workers, self._members)
            is_fresh = self._discovery.is_fresh(began)
            if is_fresh and len(chosen) >= self._elastic.min_workers:
                return chosen
            if is_fresh and not is_waiting:
                is_waiting = True
                say(f"{self._too_few(chosen)}: waiting up to {self._elastic.elastic_timeout_seconds:g} s for more.")
            if now - began > self._elastic.elastic_timeout_seconds:
                say(
                    f"{self._too_few(chosen)} after {self._elastic.elastic_timeout_seconds:g} s: the job has failed. "
                    f"Add hosts to the list, lower --min_workers, or raise --elastic_timeout; the same command goes "
                    f"on from the last checkpoint."
                )
                raise _JobEnds(FAILED)
            self._look_for_signals()

    def _too_few(self, chosen: Members) -> str:
        left_out = [host.name for host in self._discovery.hosts if host.name not in chosen.hosts]
        also = f" (left out for their failures: {', '.join(left_out)})" if left_out else ""
        there = f"{len(chosen)}, on {chosen}" if chosen.hosts else "none"
        return f"at least {self._elastic.min_workers} workers are wanted; slots: {there}{also}"

    def _look_for_signals(self) -> None:
        exit_code = self._attempts.wait(_LOOK_SECONDS, self._last)
        if exit_code is not None:
            raise _JobEnds(exit_code)

    def _use(self, members: Members) -> None:
        limit = self._elastic.reset_limit
        if self._members.hosts and sorted(members.hosts) != sorted(self._members.hosts):
            self._changes += 1
            if limit is not None and self._changes > limit:
                say(
                    f"the hosts have changed {self._changes} times, and --reset_limit={limit} allows {limit}: the "
                    f"job has failed. Raise it, or run the same command again: it goes on from the last checkpoint."
                )
                raise _JobEnds(FAILED)
        self._members = members
        say(f"{len(members)} {'worker' if len(members) == 1 else 'workers'}, on {members}.")

    # An attempt.

    def _attempt(self) -> Outcome:
        self._progress.begin_attempt()
        self._started_at, self._more_since = time.monotonic(), float("inf")
        with workers_of(self._members, self._command, self._options, self._progress) as specs:
            supervisor = Supervisor(
                specs,
                Console(sys.stdout, sys.stderr, [spec.name for spec in specs], live=specs[0].name),
                budget=self._budget,
                logs=self._logs,
                verbose=self._options.verbose,
                should_end=self._change,
            )
            outcome = supervisor.run(self._inbox)
        print_report(outcome, self._started_at)
        self._last = outcome
        return outcome

    def _change(self, now: float) -> str | None:
        """Why the attempt is to end for other members, if it is."""
        hosts = self._hosts(now)
        if gone := self._members.gone_from(hosts):
            return f"hosts have gone or have fewer slots ({', '.join(gone)})"
        more = len(choose(hosts, self._elastic.max_workers, self._members)) - len(self._members)
        if more <= 0:
            self._more_since = float("inf")
            return None
        self._more_since = min(self._more_since, now)
        if now - max(self._more_since, self._started_at) < self._elastic.settle_seconds:
            return None
        return f"there are slots for {more} more"

    # What follows.

    def _judge(self, outcome: Outcome) -> None:
        if outcome.was_ended:
            self._records.note_good(self._members.hosts)
            if not outcome.is_preempted:
                say("no task said that it saved (exit code 75): training goes on from the last checkpoint.")
            return
        if outcome.interrupted_by is None and outcome.exit_code != 0 and self._was_lost(outcome):
            say("no failure: its host is gone from the list.")
            return
        may_be_the_host = self._note_failure(outcome)
        lasted = time.monotonic() - self._started_at
        exit_code = self._attempts.exit_code_after(outcome, lasted, may_be_chance=may_be_the_host)
        if exit_code is not None:
            raise _JobEnds(exit_code)

    def _host_that_failed(self, outcome: Outcome) -> str | None:
        """None if tasks were preempted, or only blame each other: a machine that is cut off says nothing itself."""
        first = outcome.first_failed
        if first is None or looks_dragged_down(outcome.endings[first]):
            return None
        return self._members.hosts[int(first.rpartition("/")[2])]

    def _was_lost(self, outcome: Outcome) -> bool:
        """Whether the host that failed is gone; if it isn't known, whether any is."""
        failed = self._host_that_failed(outcome)
        ended = self._members if failed is None else Members((failed,))
        began = time.monotonic()
        self._discovery.hurry()
        # Two readings, the second of which takes as long as it may.
        seconds = 2 * self._elastic.discovery_seconds + self._elastic.discovery_timeout_seconds
        while time.monotonic() < began + seconds:
            self._discovery.poll(time.monotonic())
            if self._discovery.is_fresh(began):
                break
            self._look_for_signals()
        return bool(ended.gone_from(self._discovery.hosts))

    def _note_failure(self, outcome: Outcome) -> bool:
        """Returns whether it may be the host's own fault: it was the last to fail, too, and there are others."""
        host = self._host_that_failed(outcome)
        if host is None:
            return False
        self._records.note_good([name for name in self._members.hosts if name != host])
        before, self._failed_host = self._failed_host, host
        seconds = self._records.note_failure(host, time.monotonic())
        if seconds is not None:
            limit = self._elastic.host_failures
            say(f"host {host} has failed too often (--host_failures={limit}): it gets no workers for {seconds:g} s.")
        return host == before and any(other.name != host for other in self._discovery.hosts)


def _source(elastic: ElasticOptions, lifeline: Lifeline) -> Source:
    if elastic.hosts_file is not None:
        return HostsFile(elastic.hosts_file)
    return HostScript(elastic.host_discovery, lifeline, elastic.discovery_timeout_seconds)
