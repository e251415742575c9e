"""Starts the runs, waits for them, and says which failed.

Every task is a child process of `tfdist launch`'s supervisor: if one fails, the others are ended and the one that
failed first is known; none outlives this process; each ends itself after `timeout_seconds`. All runs are on CPUs,
where several workers fit on one machine and the same script gives the same bits again.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tfdist.launch import LaunchOptions
from tfdist.launch.environment import task_environment
from tfdist.launch.job import clusters_of_this_node
from tfdist.launch.log_files import LogFiles
from tfdist.launch.output.console import Console
from tfdist.launch.supervisor import Outcome, Supervisor
from tfdist.launch.task_process import TaskSpec
from tfdist.verify.progress import Progress
from tfdist.verify.recording import Recording
from tfdist.verify.spec import ChildSpec

_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
#: Lines of a traceback that are shown: where it began, and what it came to.
_FIRST_LINES, _LAST_LINES = 16, 24


class RunFailed(Exception):
    """The script did not come to its end in a run.

    Args:
        run: which, in words.
        how: how the process ended, in words.
        words: its traceback, or the last that it printed.
    """

    def __init__(self, run: str, how: str, words: Sequence[str]) -> None:
        super().__init__(f"{run}: {how}")
        self.run, self.how, self.words = run, how, _shortened(words)


def _shortened(words: Sequence[str]) -> list[str]:
    more = len(words) - _FIRST_LINES - _LAST_LINES
    if more <= 0:
        return list(words)
    return [*words[:_FIRST_LINES], f"... {more} lines ...", *words[-_LAST_LINES:]]


class Interrupted(Exception):
    """Ctrl-C or SIGTERM ended the runs.

    Args:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@dataclass(frozen=True)
class Run:
    """One way of running the script.

    Args:
        name: of its folder.
        title: for progress and messages, "one device".
        spec: what its processes are told; its folder is set when it starts.
    """

    name: str
    title: str
    spec: ChildSpec


class Runner:
    """Carries runs out in a directory.

    Args:
        folder: gets one folder a run: recordings, logs, and the specification.
        progress: shows what is going on.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder, self._progress = folder, progress

    def carry_out(self, *runs: Run) -> list[Recording]:
        """Run all of them side by side; returns their recordings.

        Raises:
            RunFailed: one failed.
            Interrupted: by a signal.
        """
        title = " and ".join(run.title for run in runs)
        folders = [self._prepare(run) for run in runs]
        steps = max(run.spec.steps for run in runs)
        with self._progress.phase(title, folders, steps), contextlib.ExitStack() as stack:
            specs = [task for run, folder in zip(runs, folders, strict=True) for task in _tasks(run, folder, stack)]
            outcome = self._supervise(specs)
        _raise_failure(outcome, runs)
        return [Recording.read(folder) for folder in folders]

    def _prepare(self, run: Run) -> Path:
        folder = self._folder / run.name
        folder.mkdir(parents=True)
        replace(run.spec, folder=str(folder)).write(folder / "spec.json")
        return folder

    def _supervise(self, specs: Sequence[TaskSpec]) -> Outcome:
        # What the script prints goes to files; a terminal shows the progress of the runs.
        with open(os.devnull, "w") as nowhere:
            console = Console(nowhere, nowhere, [spec.name for spec in specs])
            return Supervisor(specs, console, logs=LogFiles(self._folder)).run()


def _tasks(run: Run, folder: Path, stack: contextlib.ExitStack) -> list[TaskSpec]:
    command = [sys.executable, "-m", "tfdist.verify.child", str(folder / "spec.json")]
    if not run.spec.is_distributed:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **_ENVIRONMENT}
        environment.pop("TF_CONFIG", None)
        return [TaskSpec(run.name, command, environment)]
    clusters = stack.enter_context(clusters_of_this_node(LaunchOptions(workers=run.spec.workers)))
    return [
        TaskSpec(f"{run.name}-{cluster.task.index}", command, task_environment(cluster, _ENVIRONMENT))
        for cluster in clusters
    ]


def _raise_failure(outcome: Outcome, runs: Sequence[Run]) -> None:
    if outcome.interrupted_by is not None:
        raise Interrupted(outcome.interrupted_by)
    name = outcome.first_failed
    if name is None:
        return
    ending = outcome.endings[name]
    run = next(run for run in runs if name == run.name or name.rpartition("-")[0] == run.name)
    worker = f", worker {name.rpartition('-')[2]}" if run.spec.is_distributed else ""
    how = f"ended by signal {-ending.code}" if ending.code < 0 else f"exit code {ending.code}"
    if any(word.startswith("Timeout (") for word in ending.words):
        how = f"not done after {run.spec.timeout_seconds:.0f} s (--timeout_seconds)"
    raise RunFailed(run.title + worker, how, ending.words)
