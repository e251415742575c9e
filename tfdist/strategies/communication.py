"""What the workers of a strategy send gradients through: TensorFlow's gRPC and NCCL, or MPI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tfdist._compat.tensorflow_transport import has_one_cpu, use_transport
from tfdist.cluster import Cluster, mpi
from tfdist.errors import ClusterError
from tfdist.log import logger
from tfdist.strategies.mpi_transport import MPITransport

Communication = Literal["auto", "grpc", "mpi"]
_NAMES = ("auto", "grpc", "mpi")


@dataclass(frozen=True)
class Choice:
    """What a process has chosen; it must be the same on all workers.

    Args:
        asked: by the user.
        world: the communicator of all workers; None for TensorFlow's own collectives.
        why: in words.
    """

    asked: Communication
    world: Any
    why: str

    @property
    def facts(self) -> dict[str, str]:
        """What workers compare before they start."""
        return {"communication": f"MPI ({mpi.library()})" if self.world is not None else "TensorFlow's"}


def choose(asked: Communication, cluster: Cluster) -> Choice:
    """MPI if it's asked for, or found and not ruled out; it's started then.

    Args:
        asked: by the user.
        cluster: as this worker sees it.

    Raises:
        ValueError: there is no such communication.
        ClusterError: MPI is asked for and can't be had.
    """
    if asked not in _NAMES:
        raise ValueError(f"Expected: communication in {_NAMES}. Received: communication={asked!r}.")
    if asked == "grpc":
        return Choice(asked, None, "communication='grpc'")
    if asked == "mpi":
        world = mpi.world()
        why_not = _why_not(cluster)
        if why_not:
            raise ClusterError(
                f"Expected: rank i of mpiexec as worker i for communication='mpi'. Received: {why_not}. Leave "
                "TF_CONFIG to tfdist, which makes it from the ranks, or start with `tfdist launch --mpi`."
            )
        return Choice(asked, world, "communication='mpi'")
    if why_not := _why_not(cluster):
        return Choice(asked, None, why_not)
    try:
        return Choice(asked, mpi.world(), "mpiexec has started it")
    except ClusterError as error:
        logger.warning("%s", error)
        return Choice(asked, None, "MPI can't be used")


def use(choice: Choice, strategy: Any) -> None:
    """Let a strategy's workers send what they add up and gather as chosen; says which way it took.

    Args:
        choice: the same on all workers.
        strategy: whose workers are connected.

    Raises:
        ValueError: MPI is asked for where devices are no CPUs, or several.
    """
    if strategy.num_workers == 1:
        return
    devices = [device.rpartition("/device:")[2] for device in strategy.extended.worker_devices]
    if choice.world is None:
        logger.info("communication: TensorFlow's (gRPC, NCCL between GPUs): %s", choice.why)
    elif has_one_cpu(strategy):
        use_transport(strategy, MPITransport(choice.world, strategy.peers.check_waiting))
        logger.info("communication: MPI (%s, %d ranks): %s", mpi.library(), strategy.num_workers, choice.why)
    elif choice.asked == "mpi":
        raise ValueError(
            f"communication='mpi' adds up what CPUs compute, one a worker. Expected: one CPU. Received: {devices}. "
            "Leave it out for GPUs, which have NCCL, or start a rank for each CPU."
        )
    else:
        logger.info("communication: TensorFlow's (gRPC, NCCL between GPUs): workers have %s", devices)


def _why_not(cluster: Cluster) -> str:
    rank = mpi.rank_of_process()
    if cluster.num_workers == 1:
        return "one worker"
    if rank is None:
        return "not started by mpiexec"
    if (rank.index, rank.count) != (cluster.worker_index, cluster.num_workers):
        return f"{rank} is worker {cluster.worker_index} of {cluster.num_workers}"
    if not mpi.is_installed():
        return f"mpi4py is not installed ({mpi.INSTALL})"
    return ""
