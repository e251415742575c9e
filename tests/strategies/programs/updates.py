"""Fits under each policy of tfdist.updates, on three workers of which the first is slow, and what was measured.

python -m tests.strategies.programs.updates OUTPUT
"""

from __future__ import annotations

import pickle
import signal
import sys
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import tfdist
from tests.helpers.slow import Slow
from tests.helpers.tasks import running
from tests.strategies.programs.parameter_server_faults import At
from tfdist.cluster import Cluster, Task
from tfdist.updates import Async, BoundedStaleness, DelayCompensated, StalenessAware

WORKERS = 3
STEPS, EPOCHS = 60, 2
BOUND = 2
#: How much longer each worker's steps take.
SECONDS = [0.1, 0.01, 0.01]

POLICIES = {
    "async": Async(),
    "wait": BoundedStaleness(BOUND),
    "one at a time": BoundedStaleness(0),
    "drop": BoundedStaleness(BOUND, "drop"),
    "scale": BoundedStaleness(BOUND, "scale"),
    "aware": StalenessAware(),
    "compensated": DelayCompensated(),
    "none": None,
}


def fit(cluster: Cluster, policy: Any, *callbacks: Any, steps_per_execution: int = 1, **options: Any) -> dict[str, Any]:
    strategy = tfdist.ParameterServerStrategy(cluster, update=policy, **options)
    with strategy.scope():
        slow = Slow(SECONDS)
        model = keras.Sequential([keras.Input((4,)), slow, keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.01), "mse", steps_per_execution=steps_per_execution)
    x = tf.random.stateless_normal([STEPS * 8, 4], [1, 2])
    data = tf.data.Dataset.from_tensor_slices((x, tf.reduce_sum(x, 1, keepdims=True))).batch(8)
    begun = time.monotonic()
    history = model.fit(data, epochs=EPOCHS, verbose=0, callbacks=list(callbacks)).history
    return {
        "seconds": time.monotonic() - begun,
        "history": history,
        "counts": strategy.staleness.counts.tolist(),
        "largest": strategy.staleness.largest,
        "dropped": strategy.staleness.dropped,
        "iterations": int(model.optimizer.iterations),
        "reported": strategy.reported_steps,
        "repeated": strategy.repeated_steps,
        "steps of each worker": slow.steps.numpy().tolist(),
    }


def with_a_worker_killed(folder: Path) -> dict[str, Any]:
    """For good, in the middle of waiting for each other."""
    with running(folder, workers=2, ps=1) as (cluster, tasks):
        kill = At(STEPS // 3, lambda: tasks.signal(Task("worker", 0), signal.SIGKILL))
        return fit(cluster, BoundedStaleness(BOUND), kill)


def main(output: Path) -> None:
    results = {}
    with tfdist.cluster.local(workers=WORKERS, ps=2) as cluster:
        for name, policy in POLICIES.items():
            results[name] = fit(cluster, policy)
        results["wait, 2 steps an execution"] = fit(cluster, BoundedStaleness(3), steps_per_execution=2)
        results["accumulated"] = fit(cluster, Async(), gradient_accumulation_steps=4)
    results["killed"] = with_a_worker_killed(output.parent)
    output.write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
