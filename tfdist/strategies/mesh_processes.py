"""The processes that share a mesh: they meet, and DTensor's runtime connects them.

Order of events: the workers meet on the chief's port and compare what they are about to make (cluster/rendezvous.py);
then TensorFlow listens on the same ports, and DTensor, told by its environment variables who there is, connects them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorflow.experimental import dtensor

from tfdist.cluster import Cluster
from tfdist.strategies.peer_watch import NobodyElse, PeerWatch
from tfdist.strategies.start_up import check_seconds, peers_of_process

#: What DTensor calls all of its processes, chief and workers.
JOB = "worker"

_connected: list[str] = []


@dataclass(frozen=True)
class TimeOuts:
    """In seconds; see HybridParallelStrategy."""

    peer: float
    heartbeat: float
    start: float
    stall: float

    def __post_init__(self) -> None:
        check_seconds(
            peer_timeout_seconds=self.peer,
            heartbeat_timeout_seconds=self.heartbeat,
            start_timeout_seconds=self.start,
            stall_seconds=self.stall,
        )


@dataclass(frozen=True)
class MeshProcesses:
    """Who shares the mesh.

    Args:
        count: of processes.
        index: of this one; the chief's is 0.
        peers: watches the others.
    """

    count: int = 1
    index: int = 0
    peers: PeerWatch | NobodyElse = field(default_factory=NobodyElse)

    @property
    def job(self) -> str:
        """TensorFlow's name for them."""
        return JOB if self.count > 1 else "localhost"


def place_in(cluster: Cluster) -> tuple[int, int]:
    """How many processes share the mesh, and which of them this is; an evaluator has a mesh of its own."""
    return (1, 0) if cluster.worker_index is None else (cluster.num_workers, cluster.worker_index)


def connect(cluster: Cluster, kind: str, facts: Mapping[str, str], seconds: TimeOuts) -> MeshProcesses:
    """Returns when all processes are here and alike, and DTensor has connected them.

    Args:
        cluster: as this task sees it.
        kind: of devices, "CPU" or "GPU".
        facts: what must be the same on all, by names for messages.
        seconds: how long to wait for what.

    Raises:
        ClusterError: this task can't listen, or others don't come in time.
        WorkersDisagreeError: a fact, a version or the script differs.
        RuntimeError: TensorFlow has run operations before.
    """
    count, index = place_in(cluster)
    if count == 1:
        return MeshProcesses()
    addresses = [str(cluster.at(task).address) for task in cluster.worker_tasks]
    peers = peers_of_process(
        cluster,
        heartbeat_timeout_seconds=seconds.heartbeat,
        start_timeout_seconds=seconds.start,
        stall_seconds=seconds.stall,
        facts=facts,
        jobs={JOB: addresses},
    )
    if not _connected:
        _connect_clients(addresses, index, kind)
        _connected.append(kind)
    return MeshProcesses(count, index, peers)


def _connect_clients(addresses: list[str], index: int, kind: str) -> None:
    os.environ["DTENSOR_JOBS"] = ",".join(addresses)
    os.environ["DTENSOR_NUM_CLIENTS"] = str(len(addresses))
    os.environ["DTENSOR_CLIENT_ID"] = str(index)
    os.environ["DTENSOR_JOB_NAME"] = JOB
    try:
        # The coordination service is configured already, with time-outs.
        dtensor.initialize_accelerator_system(kind, enable_coordination_service=False)
    except ValueError as error:
        raise RuntimeError(
            "HybridParallelStrategy() connects the workers, which TensorFlow allows only before its first operation. "
            "Received: a strategy made after a tensor, dataset, model or another strategy. Make the strategy first. "
            f"({error})"
        ) from error
