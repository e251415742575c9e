"""How the workers of a job find each other, and what must be the same on all of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import keras
import tensorflow as tf

from tfdist._compat import tensorflow as tf_compat
from tfdist._compat.tensorflow_coordination import configure_coordination, is_configured
from tfdist.cluster import Cluster, Task
from tfdist.cluster.start_up import check_own_port, missing_tasks, reporting_missing
from tfdist.errors import ClusterError
from tfdist.log import logger

#: Clocks that are kept by NTP are milliseconds apart; workers leave TensorFlow's rendezvous within a second or two.
_CLOCKS_APART_SECONDS = 10.0


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


@contextlib.contextmanager
def joining(cluster: Cluster, *, heartbeat_timeout_seconds: float, start_timeout_seconds: float) -> Iterator[None]:
    """Around the connecting of all workers.

    Raises:
        ClusterError: this task can't listen, or others don't come in time; names them.
    """
    if cluster.num_workers == 1 or is_configured():
        yield  # alone, or connected by an earlier strategy
        return
    check_own_port(cluster)
    configure_coordination(
        cluster.jobs,
        heartbeat_timeout_seconds=heartbeat_timeout_seconds,
        start_timeout_seconds=start_timeout_seconds,
    )
    try:
        with reporting_missing(cluster, logger.warning):
            yield
    except tf.errors.OpError as error:
        said = [f"{one.subject.removeprefix('peer ')}: {one.said}. {one.fix}" for one in missing_tasks(cluster)]
        raise ClusterError(
            f"Expected: all {cluster.num_workers} workers within {start_timeout_seconds:.0f} s. Received: "
            f"{'; '.join(said) if said else str(error).splitlines()[0]}"
        ) from error


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


def compare_clocks(room: str, worker: int, num_workers: int, wait_for: Callable[[str, str, str], str]) -> None:
    """Warn, on the chief, of a worker whose clock is far from the chief's; call it when workers have just met.

    Args:
        room: prefix of keys, the same on every worker.
        worker: this one's index.
        num_workers: how many there are.
        wait_for: gives the value of a key; who is to publish it and what it does are for messages.
    """
    now = time.time()
    if worker:
        tf_compat.publish(f"{room}/{worker}", repr(now))
        return
    for index in range(1, num_workers):
        ahead = float(wait_for(f"{room}/{index}", f"worker {index}", "make its strategy")) - now
        if abs(ahead) > _CLOCKS_APART_SECONDS:
            logger.warning(
                "the clock of worker %d is %.0f s %s the chief's, so times in their logs can't be compared. Is NTP on?",
                index,
                abs(ahead),
                "ahead of" if ahead > 0 else "behind",
            )
