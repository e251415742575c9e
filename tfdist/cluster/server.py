"""The server of a worker or ps task. The one module of this folder that imports TensorFlow, when it's asked to."""

from __future__ import annotations

import os
from typing import Any

from tfdist.cluster.spec import Cluster

# A server runs blocking operations (queues, collectives, waiting for a peer) on its inter-op
# threads. With TensorFlow's default, one per core, a machine with 2 cores hangs: both threads wait
# for work that has no thread. 8 never hung in parameter-server jobs with 3 workers on 2 cores.
INTER_OP_THREADS = 8


def start_server(cluster: Cluster, cpus: int = 1) -> Any:
    """Returns a running tf.distribute.Server for the cluster's own task, its CPU cut into `cpus` devices."""
    import tensorflow as tf

    return tf.distribute.Server(
        {job: list(addresses) for job, addresses in cluster.jobs.items()},
        job_name=cluster.task.type,
        task_index=cluster.task.index,
        protocol=cluster.rpc_layer,
        config=_config(tf, cluster, cpus),
    )


def _config(tf: Any, cluster: Cluster, cpus: int) -> Any:
    config = tf.compat.v1.ConfigProto()
    cores = os.cpu_count() or 1
    config.inter_op_parallelism_threads = max(INTER_OP_THREADS, cores)
    # The tasks share the cores; each with threads for all of them only takes turns.
    config.intra_op_parallelism_threads = max(1, cores // len(cluster.tasks))
    config.device_count["CPU"] = cpus
    return config
