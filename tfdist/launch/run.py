"""Launches a command on all tasks of this node, from options to exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence

from tfdist.cluster import Cluster
from tfdist.errors import LaunchError
from tfdist.launch.data_service import data_service
from tfdist.launch.environment import task_environment
from tfdist.launch.job import clusters_of_this_node
from tfdist.launch.options import LaunchOptions
from tfdist.launch.output.console import Console
from tfdist.launch.report import failure_report
from tfdist.launch.supervisor import Outcome, Supervisor
from tfdist.launch.task_process import TaskSpec


def run(command: Sequence[str], options: LaunchOptions | None = None) -> int:
    """Runs `command` once per task of this node, each with its TF_CONFIG, until all have ended.

    Args:
        command: Program and arguments, the same for all tasks.
        options: How many tasks, where, and what is shown; one worker by default.

    Returns:
        0, or the exit code of the task that failed first (128 + N if signal N ended it).

    Raises:
        LaunchError: If the options can't be carried out.

    Example:
        >>> run([sys.executable, "train.py", "--epochs=2"], LaunchOptions(workers=2))
        0
    """
    options = options or LaunchOptions()
    _make_log_dir(options)
    started_at = time.monotonic()
    try:
        with clusters_of_this_node(options) as clusters, data_service(options) as (helpers, extra):
            outcome = _supervise(clusters, command, options, helpers, extra)
        report = failure_report(outcome, started_at, log_dir=options.log_dir, nnodes=options.nnodes)
        if report:
            print(report, file=sys.stderr, flush=True)
        return outcome.exit_code
    except BrokenPipeError:
        # Nobody reads any more (`tfdist launch ... | head`). Python would complain again at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _supervise(
    clusters: Sequence[Cluster],
    command: Sequence[str],
    options: LaunchOptions,
    helpers: Sequence[TaskSpec],
    extra: Mapping[str, str],
) -> Outcome:
    names = [str(cluster.task) for cluster in clusters]
    chief = next((str(cluster.task) for cluster in clusters if cluster.is_chief), None)
    specs = [
        TaskSpec(
            str(cluster.task),
            command,
            task_environment(cluster, options.env, verbose=options.verbose, extra=extra),
        )
        for cluster in clusters
    ]
    supervisor = Supervisor(
        specs,
        Console(sys.stdout, sys.stderr, [*names, *(helper.name for helper in helpers)], live=chief),
        helpers=helpers,
        coordinator=chief if options.ps else None,
        log_dir=options.log_dir,
        verbose=options.verbose,
    )
    return supervisor.run()


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
