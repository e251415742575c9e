"""Which records each worker reads, and in which step.

Four rules; `auto` takes the first or second for what is read in order or shuffled locally, the third for what is
shuffled globally or mixed:

- files: whole files, dealt out by record count. Taken if no worker then needs more steps than others.
- records: one run of consecutive records a worker, found through the index; a file on a border is read by two workers,
  each its own bytes of it.
- batches: worker w of W takes the rows n*w//W up to n*(w+1)//W of each global batch of n rows (the rule of `rows`). The
  global batches are then the same for any number of workers.
- all: one worker, everything.

Under each of them a record is read once an epoch, by one worker, and all workers make ceil(records / batch_size) steps;
a worker that has run out joins with batches without rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfdist import cluster

RULES = ("auto", "files", "records", "batches")

_preferred: list[str] = []
_shared_as: list[ShardOptions] = []


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
    own = getattr(tf.distribute.get_strategy(), "share", None)
    if isinstance(own, ShardOptions):
        return own
    if _shared_as and not in_scope:
        return _shared_as[0]
    job = _cluster_of(tf.distribute.get_strategy()) if in_scope else cluster.resolve()
    if job.worker_index is None:
        return ShardOptions()
    return ShardOptions(job.num_workers, job.worker_index)


def share_as(shard: ShardOptions) -> None:
    """Lets this process read this share from now on, outside of scopes: that of its part of a mesh, say."""
    _shared_as[:] = [shard]


def _cluster_of(strategy: tf.distribute.Strategy) -> cluster.Cluster:
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict() if resolver else {}
    if not jobs:
        return cluster.Cluster()
    return cluster.Cluster(jobs, cluster.Task(resolver.task_type, resolver.task_id or 0))


@dataclass(frozen=True)
class Share:
    """One worker's part of the records, and how it's dealt out to steps.

    Attributes:
        rule: "all", "files", "records" or "batches".
        ranges: First records and the ones behind the last, of each run of records that the worker reads.
        num_steps: Of an epoch; the same on all workers.
        batch_size: Rows of a global batch.
        total: Records of all workers.
        shard: Which worker.
        drop_remainder: Whether all batches are full.
    """

    rule: str
    ranges: tuple[tuple[int, int], ...]
    num_steps: int
    batch_size: int
    total: int
    shard: ShardOptions
    drop_remainder: bool

    @property
    def num_records(self) -> int:
        """Records of this worker; of all workers, where the rule is "batches"."""
        return sum(stop - start for start, stop in self.ranges)

    @property
    def rows(self) -> int:
        """Rows of this worker in a full batch."""
        begin, end = _slice(self.batch_size, self.shard)
        return end - begin

    def bounds(self, step: int) -> tuple[int, int]:
        """Where the rows of a step begin and end, in the order of this worker's records."""
        if self.rule == "batches":
            first = step * self.batch_size
            begin, end = _slice(min(self.batch_size, self.total - first), self.shard)
            return first + begin, first + end
        own = self.num_records
        begin = min(step * self.rows, own)
        is_last = step == self.num_steps - 1 and not self.drop_remainder
        return begin, own if is_last else min(begin + self.rows, own)


def share_of(
    first_ids: Sequence[int], shard: ShardOptions, batch_size: int, *, rule: str = "auto", drop_remainder: bool = False
) -> Share:
    """Decides which records a worker reads.

    Args:
        first_ids: Number of the first record of each file, then the count of all.
        shard: Which worker of how many.
        batch_size: Rows of a global batch.
        rule: One of `RULES`; "auto" is "files" if that is balanced, else "records".
        drop_remainder: Whether to leave out the records behind the last full global batch.

    Raises:
        ValueError: If "files" is asked for and the files can't be dealt out so that all workers make the same steps.
    """
    total = int(first_ids[-1])
    steps = total // batch_size if drop_remainder else -(-total // batch_size)

    def share(rule: str, ranges: Sequence[tuple[int, int]]) -> Share:
        return Share(rule, tuple(ranges), steps, batch_size, total, shard, drop_remainder)

    if shard.num_shards == 1:
        return share("all", [(0, total)])
    if rule == "batches":
        return share("batches", [(0, total)])
    if rule in ("auto", "files"):
        dealt = _deal(np.diff(first_ids), shard.num_shards)
        if _is_balanced(dealt, np.diff(first_ids), steps, batch_size, drop_remainder):
            return share("files", [(int(first_ids[i]), int(first_ids[i + 1])) for i in dealt[shard.index]])
        if rule == "files":
            raise ValueError(
                f"sharding='files' needs files that {shard.num_shards} workers can share evenly. Received: "
                f"{len(first_ids) - 1} files of {min(np.diff(first_ids))} to {max(np.diff(first_ids))} records, "
                f"batch_size={batch_size}. Use sharding='auto', a batch size that is a multiple of the number of "
                "workers, or write evenly sized files with: tfdist data reshard"
            )
    return share("records", [_run(total, batch_size, shard)])


def prefer_batches() -> None:
    """Lets "auto" be "batches" in this process from now on: the same global batches for any number of workers.

    For comparing runs; it reads more of the files than needed.
    """
    _preferred[:] = ["batches"]


def resolved(rule: str) -> str:
    """The rule that stands for "auto" in this process, if there is one."""
    return _preferred[0] if rule == "auto" and _preferred else rule


def _slice(rows: int, shard: ShardOptions) -> tuple[int, int]:
    return rows * shard.index // shard.num_shards, rows * (shard.index + 1) // shard.num_shards


def _run(total: int, batch_size: int, shard: ShardOptions) -> tuple[int, int]:
    """The run of records that gives a worker its rows of each full global batch and of the rest."""
    full, rest = divmod(total, batch_size)
    begin, end = _slice(batch_size, shard)
    rest_begin, rest_end = _slice(rest, shard)
    return full * begin + rest_begin, full * end + rest_end


def _deal(counts: np.ndarray, workers: int) -> list[list[int]]:
    """Files for each worker: the largest first, to the one that has the fewest records (Graham, 1969)."""
    loads, files = [0] * workers, [[] for _ in range(workers)]  # type: tuple[list[int], list[list[int]]]
    for file in np.argsort(-counts, kind="stable"):
        least = loads.index(min(loads))
        loads[least] += int(counts[file])
        files[least].append(int(file))
    return [sorted(one) for one in files]


def _is_balanced(dealt: list[list[int]], counts: np.ndarray, steps: int, batch_size: int, drop_remainder: bool) -> bool:
    """Whether whole files give every worker enough rows, and none more than its batches hold."""
    for worker, files in enumerate(dealt):
        begin, end = _slice(batch_size, ShardOptions(len(dealt), worker))
        own, rows = int(counts[files].sum()), end - begin
        if not files or (own < steps * rows if drop_remainder else own > steps * rows):
            return False
    return True
