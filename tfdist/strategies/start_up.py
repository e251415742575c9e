"""How the workers of a job find each other, and what must be the same on all of them."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import keras
import tensorflow as tf

from tfdist._compat.tensorflow_coordination import configure_coordination, is_configured
from tfdist.cluster import Cluster, Task
from tfdist.cluster.address import Address
from tfdist.cluster.rendezvous import Card, check_own_port, meet
from tfdist.log import logger
from tfdist.strategies.peer_watch import NobodyElse, PeerWatch

#: TensorFlow takes up to one and a half times its time-out to notice, and ending some seconds more. Its own is 10 s.
_SILENT_SHARE = 0.3
#: Clocks that are kept by NTP are milliseconds apart.
_CLOCKS_APART_SECONDS = 10.0

_peers: list[PeerWatch] = []


def as_cluster(cluster: Cluster | tf.distribute.cluster_resolver.ClusterResolver) -> Cluster:
    """What a TensorFlow resolver says, as tfdist's own description."""
    if isinstance(cluster, Cluster):
        return cluster
    jobs = cluster.cluster_spec().as_dict() if cluster.cluster_spec() else {}
    if not jobs:
        return Cluster({}, Task("worker", 0))
    return Cluster({job: tuple(addresses) for job, addresses in jobs.items()}, Task(cluster.task_type, cluster.task_id))


def check_seconds(**seconds: float) -> None:
    """Refuse time-outs that aren't positive.

    Args:
        seconds: by their names.

    Raises:
        ValueError: names the wrong one.
    """
    for name, value in seconds.items():
        if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise ValueError(f"Expected: a number of seconds above 0. Received: {name}={value!r}.")


def peers_of_process(
    cluster: Cluster,
    *,
    heartbeat_timeout_seconds: float,
    start_timeout_seconds: float,
    stall_seconds: float,
    facts: Mapping[str, str] | None = None,
    jobs: Mapping[str, Sequence[str]] | None = None,
) -> PeerWatch | NobodyElse:
    """A process meets the others once, whatever strategies it makes.

    Returns when all workers are here and alike, and TensorFlow can connect them.

    Args:
        cluster: as this task sees it.
        heartbeat_timeout_seconds: how long until a worker that is silent has ended the others.
        start_timeout_seconds: how long to wait for the others.
        stall_seconds: how long a step takes at least before the log says who is waited for.
        facts: what else must be the same on all of them.
        jobs: what TensorFlow is to take the cluster for; the cluster's own by default.

    Raises:
        ClusterError: this task can't listen, or others don't come in time; names them.
        WorkersDisagreeError: workers have other versions, run another script, or have other facts.
    """
    if _peers:
        return _peers[0]
    if is_configured():
        return NobodyElse()  # the user has connected the workers
    index, host = cluster.worker_index or 0, Address.parse(cluster.address).host
    silent_seconds = heartbeat_timeout_seconds * _SILENT_SHARE
    peers = PeerWatch(index, cluster.num_workers, host, stall_seconds=stall_seconds, silent_seconds=silent_seconds)
    check_own_port(cluster)
    card = Card({**facts_of_start(cluster), **(facts or {})}, peers.address)
    meeting = meet(cluster, card, timeout_seconds=start_timeout_seconds, say=logger.warning)
    _say_clocks(meeting.clocks_ahead_seconds)
    peers.connect(meeting.peer_addresses, meeting.token)
    configure_coordination(
        cluster.jobs if jobs is None else jobs,
        heartbeat_timeout_seconds=silent_seconds,
        start_timeout_seconds=start_timeout_seconds,
    )
    _peers.append(peers)
    return peers


def facts_of_start(cluster: Cluster) -> dict[str, str]:
    """What must be the same on all workers before they do anything together."""
    return {
        "cluster": json.dumps({job: list(addresses) for job, addresses in cluster.jobs.items()}),
        "tfdist version": version("tfdist"),
        "TensorFlow version": tf.__version__,
        "Keras version": keras.__version__,
        "Python version": ".".join(platform.python_version_tuple()[:2]),
        "script": _script(),
    }


def _script() -> str:
    """What runs, by its content: machines may have it in different folders."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None or not Path(file).is_file():
        return "none"
    return f"{Path(file).name} with SHA-256 {hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]}"


def _say_clocks(ahead_seconds: Mapping[int, float]) -> None:
    for index, ahead in ahead_seconds.items():
        if abs(ahead) > _CLOCKS_APART_SECONDS:
            logger.warning(
                "the clock of worker %d is %.0f s %s the chief's, so times in their logs can't be compared. Is NTP on?",
                index,
                abs(ahead),
                "ahead of" if ahead > 0 else "behind",
            )
