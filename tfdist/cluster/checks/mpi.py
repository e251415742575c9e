"""Whether workers can talk through MPI, which they may as well leave."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from importlib import metadata

from tfdist.cluster import mpi
from tfdist.cluster.checks.finding import Finding

_SECONDS = 10.0


def check_mpi() -> Iterator[Finding]:
    """Gives a line about mpi4py and mpiexec; a problem for a rank that has no mpi4py."""
    rank = mpi.rank_of_process()
    said = f"mpi4py {metadata.version('mpi4py')}" if mpi.is_installed() else "no mpi4py"
    mpiexec = mpi.mpiexec_found()
    said += f", {mpiexec} ({_version(mpiexec)})" if mpiexec else ", no mpiexec"
    if rank is not None and not mpi.is_installed():
        yield Finding("mpi", f"{said}; this process is {rank}", mpi.INSTALL)
        return
    yield Finding("mpi", said if rank is None else f"{said}; this process is {rank}")


def _version(mpiexec: str) -> str:
    try:
        done = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"doesn't run: {error}"
    lines = [" ".join(line.split()) for line in (done.stdout or done.stderr).splitlines() if line.strip()]
    return next((line for line in lines if "Version" in line), lines[0] if lines else "says no version")
