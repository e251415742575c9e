"""Runs one Python command on N ranks of mpiexec, where there are mpi4py and mpiexec."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.cluster_runner import ClusterFailed
from tests.helpers.warm_processes import QUIET
from tfdist.cluster import mpi
from tfdist.errors import LaunchError
from tfdist.launch.mpi import OPEN_MPI_VARIABLES, find_mpiexec


def _is_there() -> bool:
    try:
        return mpi.is_installed() and bool(find_mpiexec())
    except LaunchError:
        return False


needs_mpi = pytest.mark.skipif(not _is_there(), reason=f"needs mpi4py and mpiexec: {mpi.INSTALL}")


def run_ranks(args: Sequence[str], *, ranks: int, log: Path, timeout_seconds: float = 240) -> str:
    """Run `python *args` as so many ranks; what they printed.

    Raises:
        ClusterFailed: a rank failed, or they ran out of time, with the tail of the output.
    """
    code, said = end_of_ranks(args, ranks=ranks, log=log, timeout_seconds=timeout_seconds)
    if code != 0:
        raise ClusterFailed(f"{'out of time' if code is None else f'exit code {code}'}:\n{said[-6000:]}")
    return said


def end_of_ranks(args: Sequence[str], *, ranks: int, log: Path, timeout_seconds: float = 240) -> tuple[int | None, str]:
    """As `run_ranks`, whatever the exit code of mpiexec, None if they ran out of time."""
    env = {name: value for name, value in {**OPEN_MPI_VARIABLES, **os.environ, **QUIET}.items() if name != "TF_CONFIG"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*find_mpiexec(), "-n", str(ranks), sys.executable, *args],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return code, log.read_text(errors="replace")
