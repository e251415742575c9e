"""The processes of a job: started, asked, ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfdist.cluster import die_with_parent

from .contenders import Job, Place
from .control import Control, ControlFailed
from .links import INTERFACE, Link
from .requirements import ROOT, Pythons
from .task import RANKS, VARIABLE

START_SECONDS = 180.0
_END_SECONDS = 20.0
_FIRST_PORT = 20_000
_SHOWN_CHARACTERS = 1500


class JobFailed(RuntimeError):
    """A process of a job failed or ran out of time."""


class RunningJob:
    """The processes of a job, which wait for requests.

    Args:
        job: what to start.
        pythons: the interpreters.
        link: that the job's network asks for; None for loopback.

    Raises:
        JobFailed: a process failed.
    """

    def __init__(self, job: Job, pythons: Pythons, link: Link | None) -> None:
        self._job = job
        self._folder = tempfile.TemporaryDirectory(prefix="tfdist-bench-")
        self._logs = [Path(self._folder.name, f"{index}.log") for index in range(len(job.places))]
        self._processes: list[subprocess.Popen[bytes]] = []
        control = Path(self._folder.name, "control")
        self._control = Control(control, self._check)
        try:
            addresses = _addresses(job.places, link)
            python = pythons.path(job.contender.python)
            for index in [RANKS] if job.contender.launcher else range(len(job.places)):
                self._start(index, addresses, control, python, link)
            deadline = time.monotonic() + START_SECONDS
            with self._failures():
                self._control.connect({index for index, place in enumerate(job.places) if place.answers}, deadline)
                self._control.answers(deadline)
        except BaseException:
            self.stop()
            raise

    def ask(self, request: Mapping[str, Any], timeout_seconds: float) -> list[dict[str, Any]]:
        """What each process that answers measured.

        Raises:
            JobFailed: a process failed or didn't answer in time.
        """
        with self._failures():
            self._control.ask(dict(request))
            return self._control.answers(time.monotonic() + timeout_seconds)

    def stop(self) -> None:
        """End all processes."""
        self._control.close()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=_END_SECONDS)
        self._folder.cleanup()

    def _start(self, index: int, addresses: Sequence[str], control: Path, python: str, link: Link | None) -> None:
        job = self._job
        task = {
            "control": str(control),
            "index": index,
            "addresses": addresses,
            "kinds": [place.kind for place in job.places],
            "cores": [place.cores for place in job.places],
            "interface": INTERFACE if link else "",
            "started": time.monotonic(),
            "options": {**job.contender.options, **job.options},
        }
        command = [python, "-m", job.contender.module]
        if index == RANKS:
            command = [*ranks_command(python, len(job.places)), *command]
        elif link:
            command = link.inside(job.places[index].end, command)
        command = ["python3", "-I", "-S", str(die_with_parent.__file__), str(os.getpid()), *command]
        with self._logs[max(index, 0)].open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    command,
                    env={**environment(), VARIABLE: json.dumps(task)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd=self._folder.name,
                )
            )

    def _check(self) -> None:
        for index, process in enumerate(self._processes):
            if process.poll() is not None:
                raise ControlFailed(f"process {index} ended with exit code {process.returncode}")

    @contextlib.contextmanager
    def _failures(self) -> Any:
        try:
            yield
        except ControlFailed as error:
            said = [f"--- process {index}:\n{_tail(log)}" for index, log in enumerate(self._logs) if log.exists()]
            raise JobFailed("\n".join([f"{self._job.contender.name}: {error}", *said])) from error


def ranks_command(python: str, count: int) -> list[str]:
    """What starts a command as so many ranks: the mpiexec beside the interpreter, or that of PATH.

    Raises:
        JobFailed: there is none.
    """
    found = shutil.which("mpiexec", path=str(Path(python).parent)) or shutil.which("mpiexec")
    if found is None:
        raise JobFailed(f"Expected: mpiexec beside {python} or on the PATH. Received: none. Install an MPI.")
    return [found, "-n", str(count)]


def environment() -> dict[str, str]:
    """What a process finds; proxies would be asked for the way to the others."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name not in ("TF_CONFIG", "KERAS_BACKEND")
    }
    # Open MPI refuses root, and more ranks than cores; Task.cores pins, it need not.
    kept |= dict.fromkeys(("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"), "1")
    kept |= {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "PRTE_MCA_hwloc_default_binding_policy": "none"}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "-1"}


def _addresses(places: Sequence[Place], link: Link | None) -> list[str]:
    if link is None:
        return [f"127.0.0.1:{port}" for port in free_ports(len(places))]
    first = _FIRST_PORT + link.next_ports(len(places))
    return [f"{link.addresses[place.end]}:{first + index}" for index, place in enumerate(places)]


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-_SHOWN_CHARACTERS:].strip()
