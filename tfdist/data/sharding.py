"""Which part of every global batch a worker reads.

The rule is that of `rows`: worker w of W takes the rows n*w//W up to n*(w+1)//W of each global
batch of n rows. So the global batches are the same for any number of workers, each row is read
once, and all workers make the same number of steps: in a batch of fewer rows than workers, some get
a batch without rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tfdist import cluster


@dataclass(frozen=True)
class ShardOptions:
    """One worker's part of a data set.

    Args:
        num_shards: How many workers share the data.
        index: Which of them this is, from 0.

    Raises:
        TypeError: If either is no integer.
        ValueError: If there is no shard, or no such one.

    Example:
        >>> tfdist.data.digits("test", batch_size=64, shard=ShardOptions(num_shards=2, index=1))
    """

    num_shards: int = 1
    index: int = 0

    def __post_init__(self) -> None:
        for name in ("num_shards", "index"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(
                    f"{name} must be an integer. Received: {name}={value!r}. "
                    "Give the number of workers and this worker's index."
                )
        if self.num_shards < 1:
            raise ValueError(
                f"num_shards must be at least 1. Received: num_shards={self.num_shards}. Use the number of workers."
            )
        if not 0 <= self.index < self.num_shards:
            raise ValueError(
                f"index must be from 0 to num_shards - 1 = {self.num_shards - 1}. "
                f"Received: index={self.index}. Use this worker's index."
            )


def default_shard() -> ShardOptions:
    """Returns this worker's share: asked from the strategy in scope, else from TF_CONFIG, else all.

    An evaluator, which works beside the workers, reads everything.

    Raises:
        ClusterError: If TF_CONFIG is wrong.
    """
    in_scope = tf.distribute.has_strategy()
    job = _cluster_of(tf.distribute.get_strategy()) if in_scope else cluster.resolve()
    if job.worker_index is None:
        return ShardOptions()
    return ShardOptions(job.num_workers, job.worker_index)


def _cluster_of(strategy: tf.distribute.Strategy) -> cluster.Cluster:
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict() if resolver else {}
    if not jobs:
        return cluster.Cluster()
    return cluster.Cluster(jobs, cluster.Task(resolver.task_type, resolver.task_id or 0))
