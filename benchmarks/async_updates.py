"""What each policy of tfdist.updates makes of equal workers, of a slow one, and of one that dies: MNIST, 4 workers.

    python benchmarks/async_updates.py [--policies=async,synchronous] [--scenes=equal,slow,killed] [--output=FILE.jsonl]
    python benchmarks/async_updates.py --plot=FILE.jsonl --svg=docs/async_updates.svg       (needs matplotlib)

Each run is a chief, 4 workers and a ps, all processes of this machine, and sees the same number of examples. What a
worker's step takes is set by a sleep, 40 ms in addition to the computation, so that workers that share two cores act
like machines of their own: `slow` has one worker with 200 ms, `killed` loses one for good after a tenth of the steps.
MNIST is mnist.npz in the folder TFDIST_DATA_DIR. Plain SGD, whose learning rate falls to 0.3 of itself after each
epoch. Accuracy is that on the test images at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.slow import Slow
from tests.helpers.tasks import Tasks, running
from tests.helpers.tcp_bytes import tcp_bytes
from tfdist.cluster import Cluster, Task
from tfdist.updates import (
    Accumulated,
    Async,
    BoundedStaleness,
    DelayCompensated,
    ElasticAveraging,
    Incremental,
    StalenessAware,
    Synchronous,
)

WORKERS, BATCH = 4, 32
STEP_SECONDS, SLOW_SECONDS = 0.04, 0.2
DECAY = 0.3
SCENES = ("equal", "slow", "killed")
#: And the learning rate of the first epoch, the best of 0.2, 0.4 and 0.8 with equal workers.
POLICIES: dict[str, tuple[Any, float]] = {
    "synchronous": (Synchronous(), 0.8),
    "synchronous, 1 backup": (Synchronous(backup_workers=1), 0.8),
    "async": (Async(), 0.2),
    "bounded (4), wait": (BoundedStaleness(4), 0.2),
    "bounded (4), drop": (BoundedStaleness(4, "drop"), 0.2),
    "staleness-aware": (StalenessAware(), 0.4),
    "delay-compensated": (DelayCompensated(), 0.2),
    "accumulated (8)": (Accumulated(8), 0.8),
    "elastic (8)": (ElasticAveraging(0.9 / WORKERS, 8), 0.8),
    "incremental (512)": (Incremental(512), 0.8),
}


class Kill(keras.callbacks.Callback):
    """Kills a worker when so many steps have landed."""

    def __init__(self, tasks: Tasks, step: int) -> None:
        super().__init__()
        self._tasks, self._step, self._landed = tasks, step, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._landed += 1
        if self._landed == self._step:
            self._tasks.signal(Task("worker", 0), signal.SIGKILL)


def load() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    with np.load(Path(os.environ["TFDIST_DATA_DIR"]) / "mnist.npz") as file:
        x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    return ((x / 255).astype("float32"), y), ((x_test / 255).astype("float32"), y_test)


def run(name: str, scene: str, epochs: int, learning_rate: float | None) -> dict[str, Any]:
    """One policy in one scene, on a cluster of its own."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), workers=WORKERS, ps=1) as (cluster, tasks):
        return measured(cluster, tasks, name, scene, epochs, learning_rate)


def measured(
    cluster: Cluster, tasks: Tasks, name: str, scene: str, epochs: int, learning_rate: float | None
) -> dict[str, Any]:
    policy, tuned = POLICIES[name]
    rate = learning_rate or tuned
    (x, y), test = load()
    strategy = tfdist.ParameterServerStrategy(cluster, update=policy)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        slow = Slow([SLOW_SECONDS if scene == "slow" else STEP_SECONDS, *[STEP_SECONDS] * (WORKERS - 1)])
        layers = [keras.Input((28, 28)), slow, keras.layers.Flatten()]
        model = keras.Sequential([*layers, keras.layers.Dense(128, "relu"), keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(BATCH)
    steps = len(batches)
    model.fit(batches.take(2 * WORKERS), verbose=0)  # traces
    before, begun = tcp_bytes(tasks.pid(Task("ps", 0))), time.monotonic()
    callbacks: list[Any] = [keras.callbacks.LearningRateScheduler(lambda epoch, _: rate * DECAY**epoch)]
    callbacks += [Kill(tasks, steps // 10)] if scene == "killed" else []
    history = model.fit(batches, epochs=epochs, verbose=0, callbacks=callbacks).history
    seconds, after = time.monotonic() - begun, tcp_bytes(tasks.pid(Task("ps", 0)))
    examples = epochs * len(x)
    return {
        "policy": name,
        "scene": scene,
        "learning_rate": rate,
        "accuracy": model.evaluate(*test, batch_size=500, verbose=0)[1],
        "examples_per_second": examples / seconds,
        "mean_staleness": history["staleness"][-1],
        "max_staleness": max(history["max_staleness"]),
        "dropped": sum(history.get("dropped", [0])),
        "bytes_per_example": (sum(after) - sum(before)) / examples,
        "steps_of_workers": slow.steps.numpy().tolist(),
    }


def plot(source: Path, target: Path) -> None:
    """Accuracy and throughput of all policies, a group a scene."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in source.read_text().splitlines()]
    names = [name for name in POLICIES if any(row["policy"] == name for row in rows)]
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, key, title in zip(
        axes, ("examples_per_second", "accuracy"), ("examples/s", "test accuracy"), strict=True
    ):
        for number, scene in enumerate(SCENES):
            values = {row["policy"]: row[key] for row in rows if row["scene"] == scene}
            places = [names.index(name) + 0.27 * (number - 1) for name in values]
            axis.barh(places, list(values.values()), 0.25, label=scene)
        axis.set_title(title)
    axes[1].set_xlim(0.9, 1.0)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", help="by name, with | between; all if it isn't given")
    parser.add_argument("--scenes", default=",".join(SCENES))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning_rate", type=float, help="of all policies, instead of what is best for each")
    parser.add_argument("--output", type=Path, help="where to add the results, a line of JSON each")
    parser.add_argument("--plot", type=Path, help="results to plot")
    parser.add_argument("--svg", type=Path, default=Path("async_updates.svg"))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plot:
        plot(args.plot, args.svg)
        return
    names = args.policies.split("|") if args.policies else list(POLICIES)
    if args.here:
        print(json.dumps(run(names[0], args.scenes, args.epochs, args.learning_rate)), flush=True)
        return
    for scene in args.scenes.split(","):
        for name in names:
            command = [sys.executable, __file__, "--here", f"--policies={name}", f"--scenes={scene}"]
            command += [f"--epochs={args.epochs}"]
            command += [f"--learning_rate={args.learning_rate}"] if args.learning_rate else []
            # A process each: what one run leaves behind doesn't slow down the next.
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=1800)
            line = (
                done.stdout.splitlines()[-1] if done.returncode == 0 else json.dumps({"policy": name, "scene": scene})
            )
            print(line, flush=True)
            if args.output and done.returncode == 0:
                with args.output.open("a") as output:
                    output.write(line + "\n")


if __name__ == "__main__":
    main()
