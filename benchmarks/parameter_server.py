"""Steps/s of `fit` under tfdist.ParameterServerStrategy against a loop written by hand on ClusterCoordinator.

    python benchmarks/parameter_server.py [--workers=2] [--ps=1] [--steps=1024] [--rounds=3]

Same cluster, model, data and metrics. The loop is that of TensorFlow's guide: a dataset per worker, Keras' metrics and
optimizer on variables of the ps, `schedule` for each execution, `join` at the end. Ways take turns; the ratio of the
medians is what to quote. Beside the rates, where the time goes: TCP segments a step between all tasks, and the cores
that each kind of task kept busy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist

BATCH = 32


def make_model(kind: str) -> keras.Model:
    if kind == "cnn":
        layers = [keras.Input((28, 28, 1)), keras.layers.Conv2D(16, 3, 2, activation="relu")]
        layers += [keras.layers.Conv2D(32, 3, 2, activation="relu"), keras.layers.Flatten()]
    else:
        layers = [keras.Input((28, 28, 1)), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])


def batches() -> tf.data.Dataset:
    random = np.random.default_rng(0)
    x = random.standard_normal((2048, 28, 28, 1)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, random.integers(0, 10, 2048))).batch(BATCH, True).repeat()


def loss() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def by_hand(strategy: Any, coordinator: Any, kind: str, steps_per_execution: int) -> Callable[[int], None]:
    """The loop; call it with a number of steps."""
    with strategy.scope():
        model, optimizer, compute_loss = make_model(kind), keras.optimizers.Adam(), loss()
        metrics = [keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()]
        optimizer.build(model.trainable_variables)

    def step(batch: Any) -> None:
        x, y = batch
        with tf.GradientTape() as tape:
            predicted = model(x, training=True)
            value = compute_loss(y, predicted)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        metrics[0].update_state(value)
        metrics[1].update_state(y, predicted)

    @tf.function
    def execution(iterator: Any) -> None:
        for _ in tf.range(steps_per_execution):
            strategy.run(step, args=(next(iterator),))

    iterator = iter(coordinator.create_per_worker_dataset(batches))

    def run(steps: int) -> None:
        for _ in range(steps // steps_per_execution):
            coordinator.schedule(execution, args=(iterator,))
        coordinator.join()
        [float(metric.result()) for metric in metrics]

    return run


def with_fit(strategy: Any, kind: str, steps_per_execution: int) -> Callable[[int], None]:
    """`fit` on the same data, read by the workers."""
    with strategy.scope():
        model = make_model(kind)
        model.compile("adam", loss(), metrics=["accuracy"], steps_per_execution=steps_per_execution)
    data = batches()

    def run(steps: int) -> None:
        model.fit(data, steps_per_epoch=steps, verbose=0)

    return run


class Meter:
    """What a run took, beside time."""

    def __init__(self) -> None:
        self._segments, self._seconds, self._begun = _segments(), _cpu_seconds(), time.perf_counter()

    def since(self, steps: int) -> dict[str, float]:
        seconds = time.perf_counter() - self._begun
        used = _cpu_seconds()
        cores = {f"cores of {name}": (used[name] - self._seconds[name]) / seconds for name in used}
        return {"steps/s": steps / seconds, "segments": (_segments() - self._segments) / steps, **cores}


def _segments() -> int:
    """TCP segments that this machine has sent."""
    names, values = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line[:4] == "Tcp:"]
    return int(values[names.index("OutSegs")])


def _cpu_seconds() -> dict[str, float]:
    """Of the chief, which is this process, and of the servers, by what they are."""
    found = {"the chief": sum(os.times()[:2]), "workers": 0.0, "ps": 0.0}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"tfdist.coordination.server" not in (process / "cmdline").read_bytes():
                continue
            config = (process / "environ").read_bytes().partition(b"TF_CONFIG=")[2].partition(b"\0")[0]
            ticks = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
        except (FileNotFoundError, ProcessLookupError):
            continue
        kind = "ps" if json.loads(config)["task"]["type"] == "ps" else "workers"
        found[kind] += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return found


def compare(ways: dict[str, Callable[[int], None]], steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of what each way took."""
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            meter = Meter()
            run(steps)
            measured[name].append(meter.since(steps))
    return {
        name: {what: statistics.median(one[what] for one in runs) for what in runs[0]}
        for name, runs in measured.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ps", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default="mlp,cnn")
    parser.add_argument("--executions", default="1,8,32")
    options = parser.parse_args()
    with tfdist.cluster.local(workers=options.workers, ps=options.ps) as cluster:
        strategy = tfdist.ParameterServerStrategy(cluster)
        coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        for kind in options.models.split(","):
            for count in map(int, options.executions.split(",")):
                ways = {"by hand": by_hand(strategy, coordinator, kind, count), "fit": with_fit(strategy, kind, count)}
                for run in ways.values():
                    run(2 * count * options.workers)
                found = compare(ways, options.steps, options.rounds)
                ratio = found["fit"]["steps/s"] / found["by hand"]["steps/s"]
                print(f"{kind}, {count} steps an execution: fit / by hand {ratio:.2f}")
                for name, values in found.items():
                    print(f"  {name:8}", ", ".join(f"{value:.4g} {what}" for what, value in values.items()), flush=True)


if __name__ == "__main__":
    main()
