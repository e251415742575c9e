"""The replicas, together, do not train on the rows that one device trains on."""

from __future__ import annotations

import numpy as np

from tfdist.verify.diagnosis.finding import Evidence, Finding


def sharded_by_hand(evidence: Evidence) -> Finding | None:
    """The script gives each worker a part of the data, and tfdist then takes a part of that part."""
    sites = evidence.sites("shard")
    if not sites or not _other_rows(evidence):
        return None
    return Finding(
        "sharded_by_hand",
        "the script shards the data by itself",
        "tfdist takes each worker's dataset for the global batches, the same on every worker, and gives each replica "
        f"its rows of them. Here each worker has a shard of its own, so {_counts(evidence)}.",
        "Leave the sharding out: write the dataset as for one device. If each worker must read its own part, use "
        "tfdist.data.read_tfrecords, or set AutoShardPolicy.OFF and batch to the worker's part of the global batch.",
        sites,
        "certain",
    )


def other_batch_size(evidence: Evidence) -> Finding | None:
    """Batches N times too large or too small: a batch size that counts a replica's rows."""
    data = evidence.comparison.data
    if data is None or not data.expected:
        return None
    ratio, workers = data.received / data.expected, evidence.workers
    near = [factor for factor in (float(workers), 1.0 / workers) if abs(ratio / factor - 1) < 0.1]
    if not near or workers == 1:
        return None
    times = f"{workers} times" if near[0] > 1 else f"1/{workers} of"
    counts = _counts(evidence)
    said = "multiplied by" if near[0] > 1 else "divided by"
    return Finding(
        "per_replica_batch_size",
        f"global batches have {times} the rows of one device's",
        f"{counts[:1].upper()}{counts[1:]}. A batch is the global batch, of all replicas together; a size that is "
        f"{said} the number of replicas makes other batches for every number of them, and so another training.",
        "Give batch() and fit(batch_size=...) the rows of the global batch, whatever the number of replicas.",
        evidence.sites("replicas", in_step=False),
        "certain",
    )


def other_rows_by_worker(evidence: Evidence) -> Finding | None:
    """Worker 0 has one device's batches, and others don't: what is random depends on the worker."""
    data = evidence.comparison.data
    if data is None or data.expected != data.received:
        return None
    position, expected = _first_other_rows(evidence)
    mine = [set(rows.tolist()) <= expected for rows in evidence.distributed.rows_of(position)]
    if not mine[0] or all(mine):
        return None
    strangers = ", ".join(f"worker {worker}" for worker, same in enumerate(mine) if not same)
    return Finding(
        "data_differs_between_workers",
        "workers make different batches",
        f"At step {data.step} worker 0 trains on rows of one device's batch, and {strangers} on others. Every worker "
        "must make the same global batches. Numbers drawn before the strategy is made, and from generators that no "
        "seed reaches, differ from worker to worker.",
        "Call keras.utils.set_random_seed(...) at the top of the script, or make the strategy before the data, which "
        "gives all workers the chief's seed; give NumPy generators a seed.",
        evidence.sites("unseeded"),
        "certain",
    )


def other_rows(evidence: Evidence) -> Finding | None:
    """Any other difference in the rows, or in the number of steps."""
    if not _other_rows(evidence):
        return None
    counts = _counts(evidence)
    return Finding(
        "data_differs",
        "the workers train on other rows than one device",
        f"{counts[:1].upper()}{counts[1:]}. The input depends on the number of replicas, on the "
        "worker, or on the process.",
        "Make the same dataset on every worker, as for one device: no branches on the worker's index, TF_CONFIG or the "
        "number of replicas, no time or process id in seeds, no order of sets or directory listings.",
        (*evidence.sites("replicas", in_step=False), *evidence.sites("unseeded")),
        "certain",
    )


def _other_rows(evidence: Evidence) -> bool:
    return evidence.comparison.data is not None or bool(evidence.comparison.structure)


def _counts(evidence: Evidence) -> str:
    data, structure = evidence.comparison.data, evidence.comparison.structure
    if data is None:
        return structure
    return (
        f"at step {data.step} one device trains on {data.expected} rows and the {evidence.workers} workers on "
        f"{data.received} together, of which {data.common} are the same"
    )


def _first_other_rows(evidence: Evidence) -> tuple[int, set[int]]:
    """Position of the first record with other rows, and one device's rows in it."""
    for position, record in enumerate(evidence.reference.records):
        expected = np.sort(record.row_numbers())
        received = np.sort(np.concatenate(evidence.distributed.rows_of(position)))
        if not np.array_equal(expected, received):
            return position, set(expected.tolist())
    return 0, set()
