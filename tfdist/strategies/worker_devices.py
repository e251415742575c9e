"""Which devices of each worker of a parameter-server job compute: its GPUs, or its CPU, cut into several to try it."""

from __future__ import annotations

import tensorflow as tf

from tfdist.cluster import Cluster, Task
from tfdist.errors import ClusterError


def cpus_of_worker(task: Task, replicas: int | None) -> int:
    """Devices to cut a task's CPU into, asked on the task itself, before it serves."""
    if task.type != "worker" or tf.config.list_physical_devices("GPU"):
        return 1
    return replicas or 1


def devices_of_workers(cluster: Cluster, replicas: int | None) -> list[str]:
    """Devices that compute, the same on every worker, such as "/device:GPU:0"; asked on the chief, once connected.

    Args:
        cluster: Of the job.
        replicas: How many; None for all GPUs, or one CPU.

    Raises:
        ClusterError: a worker has fewer.
    """
    workers = range(len(cluster.addresses("worker")))
    gpus = min(_count(worker, "GPU") for worker in workers)
    kind = "GPU" if gpus else "CPU"
    wanted = replicas or gpus or 1
    for worker in workers:
        count = _count(worker, kind)
        if count < wanted:
            raise ClusterError(
                f"Every worker needs a device for each of its replicas. Expected: {wanted} {kind}s. Received: {count} "
                f"on worker {worker}, with replicas_per_worker={replicas}. Ask for fewer"
                + ("" if kind == "GPU" else f", or start them with cluster.local(cpus_per_worker={wanted})")
                + "."
            )
    return [f"/device:{kind}:{index}" for index in range(wanted)]


def _count(worker: int, kind: str) -> int:
    specs = [tf.DeviceSpec.from_string(device.name) for device in tf.config.list_logical_devices(kind)]
    return sum(spec.job == "worker" and spec.task == worker for spec in specs)
