"""Launches a command on all tasks of this node, from options to exit code."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tfdist.cluster import Cluster
from tfdist.cluster.rendezvous import TOKEN_VARIABLE
from tfdist.errors import LaunchError
from tfdist.launch.attempts import Attempts
from tfdist.launch.data_service import data_service
from tfdist.launch.elastic.driver import ElasticDriver
from tfdist.launch.environment import task_environment
from tfdist.launch.job import clusters_of_this_node
from tfdist.launch.log_files import LogFiles
from tfdist.launch.mpi import LentRank, lent_ranks
from tfdist.launch.options import LaunchOptions
from tfdist.launch.output.console import Console
from tfdist.launch.progress import ProgressFiles
from tfdist.launch.report import print_report
from tfdist.launch.restarts import RestartBudget
from tfdist.launch.signals import SignalInbox
from tfdist.launch.supervisor import Supervisor
from tfdist.launch.task_process import TaskSpec


def run(command: Sequence[str], options: LaunchOptions | None = None) -> int:
    """Runs `command` once per task of this node, each with its TF_CONFIG, until all have ended.

    Args:
        command: Program and arguments, the same for all tasks.
        options: How many tasks, where, and what is shown; one worker by default.

    Returns:
        0, or the exit code of the task that failed first (128 + N if signal N ended it), or
        `tfdist.cluster.exit_codes.PREEMPTED` if training was interrupted and its state is saved.

    Raises:
        LaunchError: If the options can't be carried out.

    Example:
        >>> run([sys.executable, "train.py", "--epochs=2"], LaunchOptions(workers=2))
        0
    """
    options = _with_token(options or LaunchOptions())
    _make_log_dir(options)
    try:
        folder = tempfile.TemporaryDirectory(prefix="tfdist-launch-", ignore_cleanup_errors=True)
        with SignalInbox() as inbox, folder as progress_folder:
            progress = ProgressFiles(Path(progress_folder))
            if options.elastic is not None:
                return ElasticDriver(command, options, options.elastic, inbox, progress).run()
            return _attempts(command, options, inbox, progress)
    except BrokenPipeError:
        # Nobody reads any more (`tfdist launch ... | head`). Python would complain again at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _attempts(command: Sequence[str], options: LaunchOptions, inbox: SignalInbox, progress: ProgressFiles) -> int:
    budget = RestartBudget(options.most_restarts, options.restart_window_seconds)
    attempts, logs = Attempts(budget, inbox, progress), LogFiles(options.log_dir)
    exit_code = None
    while exit_code is None:
        started_at = time.monotonic()
        progress.begin_attempt()
        # Each attempt has ports of its own, which nothing that is left of the one before can hold. The helpers of an
        # attempt know its state, so the next has its own.
        with (
            clusters_of_this_node(options) as clusters,
            data_service(options) as (helpers, extra),
            lent_ranks(options) as ranks,
        ):
            specs = [
                _task(cluster, command, options, {**extra, **progress.environment(str(cluster.task))}, rank)
                for cluster, rank in zip(clusters, ranks, strict=False)
            ]
            outcome = _supervisor(clusters, specs, options, helpers, budget, logs).run(inbox)
        print_report(outcome, started_at, nnodes=options.nnodes)
        exit_code = attempts.exit_code_after(outcome, time.monotonic() - started_at)
    return exit_code


def _task(
    cluster: Cluster, command: Sequence[str], options: LaunchOptions, extra: Mapping[str, str], rank: LentRank
) -> TaskSpec:
    env = task_environment(cluster, options.env, verbose=options.verbose, extra={**extra, **rank.env})
    return TaskSpec(str(cluster.task), command, env, fds=rank.fds)


def _supervisor(
    clusters: Sequence[Cluster],
    specs: Sequence[TaskSpec],
    options: LaunchOptions,
    helpers: Sequence[TaskSpec],
    budget: RestartBudget,
    logs: LogFiles,
) -> Supervisor:
    names = [spec.name for spec in (*specs, *helpers)]
    chief = next((str(cluster.task) for cluster in clusters if cluster.is_chief), None)
    return Supervisor(
        specs,
        Console(sys.stdout, sys.stderr, names, live=chief),
        helpers=helpers,
        coordinator=chief if options.ps else None,
        replaceable=[str(cluster.task) for cluster in clusters if _is_replaceable(cluster)],
        budget=budget,
        logs=logs,
        verbose=options.verbose,
    )


def _is_replaceable(cluster: Cluster) -> bool:
    """Whether the others go on without this task: where ps tasks hold the variables, a worker is tied to nobody."""
    return cluster.task.type == "worker" and bool(cluster.addresses("ps"))


def _with_token(options: LaunchOptions) -> LaunchOptions:
    """With a token by which the tasks of this job know each other; launchers of several nodes must be given one."""
    if options.nnodes > 1 or TOKEN_VARIABLE in os.environ:
        return options
    return replace(options, env={TOKEN_VARIABLE: secrets.token_hex(16), **options.env})


def _make_log_dir(options: LaunchOptions) -> None:
    if options.log_dir is None:
        return
    try:
        options.log_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LaunchError(
            f"The log directory must be one that can be made ({error.strerror}). "
            f"Received: log_dir={str(options.log_dir)!r}. Choose another --log_dir."
        ) from error
