"""Sums of rounded values: `python -m tests.gradients.programs.rounded_sum SETUP FOLDER`; each task keeps its own."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.helpers.setups import Setup
from tfdist.gradients.rounded_sum import sum_in_float32

#: A scalar, a few, one that no number of replicas divides, and one that is cut into several buckets.
SHAPES = ((), (3, 5), (10_007,), (1_500, 1_001))
WIRES = ("bfloat16", "float16")


def values_of(replica: int) -> list[np.ndarray]:
    """What a replica has; of many sizes, and with what can't be summed."""
    random = np.random.RandomState(replica)
    made = [np.asarray(random.randn(*shape) * 10.0 ** random.randint(-3, 3, shape), "float32") for shape in SHAPES]
    made[1][0, :3] = [np.inf, np.nan, 0.0]
    return made


def main(name: str, folder: Path) -> None:
    """All replicas' sums, traced and eagerly."""
    strategy = Setup.named(name).strategy
    first = strategy.worker_index * len(strategy.extended.worker_devices)

    def replica_sums() -> list[list[tf.Tensor]]:
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        mine = values_of(int(tf.get_static_value(index)))
        return [sum_in_float32([tf.constant(one) for one in mine], wire) for wire in WIRES]

    def run() -> list[list[tf.Tensor]]:
        return strategy.extended.call_for_each_replica(replica_sums)

    found = {}
    for way, function in (("traced", tf.function(run)), ("eager", run)):
        sums = tf.nest.map_structure(strategy.experimental_local_results, function())
        for local in range(len(strategy.extended.worker_devices)):
            found[way, first + local] = [[one[local].numpy() for one in of_wire] for of_wire in sums]
    (folder / f"{first}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
