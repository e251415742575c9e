"""How a process finds out which cluster it belongs to: one resolver a file.

A resolver looks at one source (TF_CONFIG, a scheduler's variables, ...). `resolve()` asks them in
order and takes the first that finds its source. To add one: write a file with a class that has
the two members of `Resolver`, and put it in `RESOLVERS` before `OneLocalTask`, which always finds
something. From outside the package, use `tfdist.cluster.register(resolver)`.
"""

from __future__ import annotations

from tfdist.cluster.resolvers.base import Resolver
from tfdist.cluster.resolvers.mpi_ranks import MPIRanks
from tfdist.cluster.resolvers.one_local_task import OneLocalTask
from tfdist.cluster.resolvers.tf_config import TFConfig
from tfdist.cluster.spec import Cluster
from tfdist.log import logger

RESOLVERS: list[Resolver] = [TFConfig(), MPIRanks(), OneLocalTask()]

__all__ = ["RESOLVERS", "MPIRanks", "OneLocalTask", "Resolver", "TFConfig", "register", "resolve"]


def resolve() -> Cluster:
    """Returns the cluster of this process: TF_CONFIG's if set, else that of the ranks of mpiexec, else one local task.

    Logs (level INFO, logger "tfdist") what it chose and why.

    Raises:
        ClusterError: If the source is there but describes no valid cluster.

    Example:
        >>> cluster = tfdist.cluster.resolve()
        >>> cluster.is_chief
        True
    """
    for resolver in RESOLVERS:
        cluster = resolver.resolve()
        if cluster is not None:
            logger.info("Cluster: %s (from %s).", cluster, resolver.name)
            return cluster
    return Cluster()


def register(resolver: Resolver) -> None:
    """Makes `resolve()` ask `resolver` before all others."""
    RESOLVERS.insert(0, resolver)
