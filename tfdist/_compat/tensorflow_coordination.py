"""TensorFlow's coordination service: its time-outs, and collectives that end when a worker is gone.

Upstream: MultiWorkerMirroredStrategy configures the service without time-outs, so a dead worker is noticed after the
service's own ten seconds and a worker that never starts is waited for for an hour, unless somebody configured the
service before. Pending collectives wait until it has noticed.
Here: it is configured before the strategy is made, and collectives are aborted with a message of ours.
Seen in TensorFlow 2.21. Can go when the strategy takes time-outs and names who is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.distribute import multi_worker_util
from tensorflow.python.eager import context

#: The jobs whose tasks train together; what the strategy lists.
_JOBS = ("chief", "worker")


def is_configured() -> bool:
    """Whether this process has been connected, or is about to be."""
    return context.context().coordination_service is not None


def configure_coordination(
    jobs: Mapping[str, Sequence[str]], *, heartbeat_timeout_seconds: float, start_timeout_seconds: float
) -> None:
    """Set the service's time-outs; before the first operation and the strategy.

    Args:
        jobs: the cluster's addresses by job.
        heartbeat_timeout_seconds: a worker that is silent for longer is gone.
        start_timeout_seconds: how long workers wait for each other at the start.
    """
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=multi_worker_util.coordination_leader(tf.train.ClusterSpec(dict(jobs))),
        heartbeat_timeout_in_ms=int(heartbeat_timeout_seconds * 1000),
        cluster_register_timeout_in_ms=int(start_timeout_seconds * 1000),
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name=job, num_tasks=len(jobs[job])) for job in _JOBS if job in jobs
        ],
    )


def abort_collectives(message: str) -> None:
    """End this process' pending collectives, and those that it would begin, with an `UnavailableError`."""
    context.context().abort_collective_ops(tf.errors.UNAVAILABLE, message)
