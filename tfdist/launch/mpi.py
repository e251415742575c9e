"""MPI ranks for the tasks of a launch.

mpiexec ends all of its processes when one ends, and mixes their output. So the tasks are not its processes: it starts
*holders*, which lend their ranks to the launcher and wait. A rank is what mpiexec has put into its process'
environment, and for MPICH and its kin a connection to mpiexec. The launcher gives one to each task that it starts, in
order: the chief is rank 0. Prefixes, reports and restarts are those of any launch, and each attempt has an mpiexec of
its own.

| what ends                    | what follows                                                                         |
|------------------------------|--------------------------------------------------------------------------------------|
| a task                       | mpiexec doesn't notice; the others lose a peer, and the supervisor does its work     |
| the attempt                  | the launcher hangs up, the holders end, and so does mpiexec                          |
| the launcher, by SIGKILL     | the same, since the system hangs up                                                  |
| mpiexec, or a holder         | MPI may end tasks, as it does for ranks that are cut off                             |
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tfdist.cluster import mpi
from tfdist.cluster.lifeline import kill_group
from tfdist.errors import LaunchError
from tfdist.launch.options import LaunchOptions

#: Slow disks and busy machines included; holders start in milliseconds.
START_SECONDS = 60.0
_END_SECONDS = 5.0
_TICK_SECONDS = 0.2
_INHERITED = "PMI_FD"
_OWN_TO_HOLDERS = ("_", "PWD", "OLDPWD", "SHLVL")
_MOST_CHARACTERS = 2000
#: Open MPI refuses more ranks than cores, and to run as root; a job of one machine may be either.
OPEN_MPI_VARIABLES = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


@dataclass(frozen=True)
class LentRank:
    """What makes a rank of a task.

    Args:
        env: variables.
        fds: open files that it inherits under the same numbers.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    fds: tuple[int, ...] = ()


@contextlib.contextmanager
def lent_ranks(options: LaunchOptions) -> Iterator[list[LentRank]]:
    """Gives a rank for each task, in order; ranks that are nothing for a launch without MPI.

    Raises:
        LaunchError: There's no mpiexec, or it doesn't start.
    """
    if not options.mpi:
        yield [LentRank()] * options.num_tasks
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tfdist-mpi-"))
        said = stack.enter_context(open(Path(folder) / "said", "w+b"))
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(Path(folder) / "ranks"))
        listener.listen(options.num_tasks)
        mpiexec = _start(options, Path(folder) / "ranks", said)
        stack.callback(_end, mpiexec)
        holders = [stack.enter_context(_accept(listener, mpiexec, said)) for _ in range(options.num_tasks)]
        yield sorted((_receive(holder, stack) for holder in holders), key=_index)


def find_mpiexec(asked: str | None = None) -> list[str]:
    """Returns the command that starts ranks: the one asked for, that of this Python's environment, or that of PATH.

    Raises:
        LaunchError: If there's none.
    """
    if asked:
        command = shlex.split(asked)
        if command and shutil.which(command[0]):
            return command
        raise LaunchError(f"mpiexec must be a program, with options. Received: mpiexec={asked!r}. Check the path.")
    found = mpi.mpiexec_found()
    if found is None:
        raise LaunchError(
            f"--mpi needs mpiexec. Received: none in {os.path.dirname(sys.executable)} or on PATH. Write: "
            f"{mpi.INSTALL}; or name it by --mpiexec."
        )
    return [found]


def _start(options: LaunchOptions, path: Path, said: IO[bytes]) -> subprocess.Popen[bytes]:
    holder = [sys.executable, "-I", "-S", str(Path(__file__).with_name("mpi_holder.py")), str(path)]
    return subprocess.Popen(
        [*find_mpiexec(options.mpiexec), "-n", str(options.num_tasks), *holder],
        env={**OPEN_MPI_VARIABLES, **os.environ},
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _end(mpiexec: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        mpiexec.wait(_END_SECONDS)
    kill_group(mpiexec.pid)
    mpiexec.wait()


def _accept(listener: socket.socket, mpiexec: subprocess.Popen[bytes], said: IO[bytes]) -> socket.socket:
    listener.settimeout(_TICK_SECONDS)
    deadline = time.monotonic() + START_SECONDS
    while mpiexec.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            return listener.accept()[0]
    said.seek(0)
    words = said.read().decode(errors="replace").strip()[-_MOST_CHARACTERS:]
    how = "not all in time" if mpiexec.poll() is None else f"exit code {mpiexec.poll()}"
    raise LaunchError(
        f"mpiexec must start a process for each task. Received: {how} from {shlex.join(mpiexec.args)}, "  # type: ignore[arg-type]
        f"which said: {words or 'nothing'}"
    )


def _receive(holder: socket.socket, stack: contextlib.ExitStack) -> LentRank:
    holder.settimeout(START_SECONDS)
    _, fds, _, _ = socket.recv_fds(holder, 1, 1)
    for fd in fds:
        stack.callback(os.close, fd)
    with holder.makefile("rb") as words:
        env = json.loads(words.readline())
    new = {name: value for name, value in env.items() if os.environ.get(name) != value and name not in _OWN_TO_HOLDERS}
    inherited = {_INHERITED: str(fds[0])} if fds else {}
    return LentRank({**new, **inherited, mpi.LENT_VARIABLE: "1"}, tuple(fds))


def _index(rank: LentRank) -> int:
    found = mpi.rank_of_process(rank.env)
    if found is None:
        raise LaunchError(
            "mpiexec must say which rank a process is. Received: none of "
            f"{', '.join(index for index, _ in mpi.VARIABLES)}. Use the mpiexec of MPICH or Open MPI: --mpiexec=PATH"
        )
    return found.index
