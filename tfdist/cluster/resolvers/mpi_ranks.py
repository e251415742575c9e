"""The cluster of the processes that mpiexec has started: rank i is worker i."""

from __future__ import annotations

import functools
import os
import secrets
import socket
from typing import Any

from tfdist.cluster import mpi
from tfdist.cluster.address import Address
from tfdist.cluster.ports import HeldPorts
from tfdist.cluster.rendezvous import TOKEN_VARIABLE
from tfdist.cluster.spec import Cluster
from tfdist.cluster.task import Task

_THIS_MACHINE = "127.0.0.1"
#: Of MPICH and its kin, and of Open MPI.
_MACHINE_VARIABLES = ("PMI_HOSTNAME", "PMIX_HOSTNAME")


class MPIRanks:
    """Tells the other ranks where this one listens; all must ask."""

    name = "the ranks of mpiexec"

    def resolve(self) -> Cluster | None:
        """Returns the cluster, or None for a process that is alone.

        Raises:
            ClusterError: If mpi4py is missing, or mpiexec is another MPI's.
        """
        rank = mpi.rank_of_process()
        return _cluster() if rank is not None and rank.count > 1 else None


@functools.cache
def _cluster() -> Cluster:
    """Once for a process, which has one port, however often it asks."""
    world = mpi.world()
    mpi.wait(world.Ibarrier())
    held = _held_port()
    machines = world.allgather(_machine())
    host = _host(machines, world.Get_rank())
    told = world.allgather((str(Address(host, held.ports[0])), secrets.token_hex(16)))
    os.environ.setdefault(TOKEN_VARIABLE, told[0][1])
    return Cluster({"worker": [address for address, _ in told]}, Task("worker", world.Get_rank()))


@functools.cache
def _held_port() -> HeldPorts:
    """Held as long as the process lives, see `tfdist.cluster.ports`."""
    held = HeldPorts(1)
    held.release_for_servers()
    return held


def _machine() -> str:
    """As mpiexec was told to call it, by which the others find it; its own name may mean nothing to them."""
    told = (os.environ.get(name) for name in _MACHINE_VARIABLES)
    return next((name for name in told if name), socket.gethostname())


def _host(machines: list[str], rank: int) -> str:
    """The address of this machine that the others see; names may lead to loopback addresses."""
    others: Any = [machine for machine in machines if machine != machines[rank]]
    if not others:
        return _THIS_MACHINE
    try:
        family, kind, _, _, where = socket.getaddrinfo(others[0], 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)  # sends nothing
            return probe.getsockname()[0]
    except OSError:
        return machines[rank]
