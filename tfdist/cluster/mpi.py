"""The ranks that mpiexec gives its processes, and what they talk through. mpi4py is imported when it's asked for.

mpiexec ends all ranks when one ends without MPI_Finalize, and MPI_Finalize waits for all. So a rank that failed, or
that lost another one, ends without it, and the others end by mpiexec; one that has come to its end waits for the
others. Ranks that are lent (`tfdist.launch.mpi`) end as any process, since mpiexec doesn't notice.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfdist.errors import ClusterError

#: What says which rank a process is, and of how many: Open MPI, MVAPICH, MPICH and its kin, Slurm with PMIx.
VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
    ("PMIX_RANK", "SLURM_NTASKS"),
)
#: Set where mpiexec has started another process, whose rank this one has.
LENT_VARIABLE = "TFDIST_MPI_LENT"
INSTALL = "pip install 'tfdist[mpi]', or mpi4py for the MPI of this machine"
_SHARED_MEMORY = "/dev/shm/mpich_shm_"
#: Others come within microseconds, or after the rest of a step, in which they need their cores.
_SPIN_SECONDS = 3e-5
_LEAST_NAP_SECONDS, _LONGEST_NAP_SECONDS, _NAP_SHARE = 2e-5, 1e-3, 0.1
#: How long a wait lasts before it's asked whether the others are still there, each time.
_CHECK_SECONDS = 0.01


@dataclass(frozen=True)
class Rank:
    """A process that mpiexec has started.

    Args:
        index: of the process, from 0.
        count: of all processes.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"rank {self.index} of {self.count}"


def rank_of_process(environment: Mapping[str, str] | None = None) -> Rank | None:
    """What mpiexec says of this process; None if it did not start it."""
    env = os.environ if environment is None else environment
    for index, count in VARIABLES:
        if env.get(index, "").isdecimal() and env.get(count, "").isdecimal():
            return Rank(int(env[index]), int(env[count]))
    return None


def without_rank(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is to be no rank, though its parent is one."""
    names = {index for index, _ in VARIABLES}
    return {name: value for name, value in environment.items() if name not in names}


def is_installed() -> bool:
    """Whether mpi4py is there; the MPI that it needs may still be missing."""
    return importlib.util.find_spec("mpi4py") is not None


def mpiexec_found() -> str | None:
    """The mpiexec of this Python's environment, or that of PATH."""
    beside_python = os.path.dirname(sys.executable)
    found = (shutil.which(name, path=path) for name in ("mpiexec", "mpirun") for path in (beside_python, None))
    return next((path for path in found if path), None)


def library() -> str:
    """The MPI that mpi4py has loaded, such as "MPICH 5.0.2"."""
    words = _mpi().Get_library_version().replace("\x00", "").replace(",", " ").split()
    version = next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), "")
    name = "Open MPI" if words[:2] == ["Open", "MPI"] else words[0]
    return f"{name} {version}".strip()


def world() -> Any:
    """The communicator of all ranks, an mpi4py.MPI.Intracomm; MPI is started for it.

    Raises:
        ClusterError: This process is no rank, mpi4py or its MPI is missing, or mpiexec is another MPI's.
    """
    rank = rank_of_process()
    if rank is None:
        raise ClusterError(
            f"Expected: a process started by mpiexec. Received: none of {', '.join(first for first, _ in VARIABLES)}. "
            "Start it with `mpiexec -n 2 python train.py` or `tfdist launch --mpi --workers=2 train.py`."
        )
    mpi = _mpi(rank)
    if mpi.COMM_WORLD.Get_size() != rank.count:
        raise ClusterError(
            f"Expected: {rank.count} ranks, as mpiexec says. Received: {mpi.COMM_WORLD.Get_size()} by {library()}, so "
            "mpiexec belongs to another MPI. Start with the mpiexec of that MPI, or install mpi4py for this one."
        )
    if mpi.Query_thread() < mpi.THREAD_SERIALIZED:
        raise ClusterError(
            "Expected: an MPI that several threads may call, one at a time. Received: mpi4py.MPI.Query_thread()="
            f"{mpi.Query_thread()} from {library()}. Import tfdist before mpi4py, or use an MPI that has "
            "MPI_THREAD_MULTIPLE."
        )
    return mpi.COMM_WORLD


def wait(request: Any, *, spin_seconds: float = _SPIN_SECONDS, check: Callable[[], None] = lambda: None) -> None:
    """Returns when an operation is done; leaves the core to others where that takes long.

    Args:
        request: an mpi4py.MPI.Request.
        spin_seconds: how long to ask again at once.
        check: raises if there's nobody left to wait for; asked up to a hundred times a second.
    """
    began = time.perf_counter()
    next_check = _CHECK_SECONDS
    while not request.Test():
        waited = time.perf_counter() - began
        if waited > next_check:
            check()
            next_check = waited + _CHECK_SECONDS
        if waited > spin_seconds:
            time.sleep(min(max(_NAP_SHARE * waited, _LEAST_NAP_SECONDS), _LONGEST_NAP_SECONDS))


def unlink_shared_memory() -> None:
    """Takes the names from what ranks share, which MPICH leaves behind for good when one is killed; all have it open.

    To be called when the ranks of this machine have started MPI, which an operation of all of them shows.
    """
    with contextlib.suppress(OSError):  # not Linux
        for line in Path("/proc/self/maps").read_text().splitlines():
            path = line.rpartition(" ")[2]
            if path.startswith(_SHARED_MEMORY):
                Path(path).unlink(missing_ok=True)


_lost: list[str] = []


def give_up(why: str) -> None:
    """Ranks are lost, so that this one must not wait for them at its end.

    Args:
        why: in words.
    """
    _lost.append(why)


def _mpi(rank: Rank | None = None) -> Any:
    if "mpi4py.MPI" not in sys.modules and is_installed():
        import mpi4py

        mpi4py.rc.finalize = False
        atexit.register(_end)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        who = f"This process is {rank}, which mpiexec has started. " if rank else ""
        raise ClusterError(
            f"{who}Expected: mpi4py with an MPI. Received: {type(error).__name__}: {error}. Write: {INSTALL}. For "
            "processes that know nothing of each other set TF_CONFIG={}."
        ) from error
    return MPI


def _end() -> None:
    """Registered before all that knows of failures, so that it comes after."""
    from mpi4py import MPI

    unlink_shared_memory()
    # Python keeps the exception that ends it there.
    is_failing = bool(_lost) or hasattr(sys, "last_value")
    if is_failing or LENT_VARIABLE in os.environ or not MPI.Is_initialized() or MPI.Is_finalized():
        return
    wait(MPI.COMM_WORLD.Ibarrier())
    MPI.Finalize()
