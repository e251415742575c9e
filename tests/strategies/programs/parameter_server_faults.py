"""A chief that kills its workers and parameter servers while it trains, and writes what came of it.

python -m tests.strategies.programs.parameter_server_faults FOLDER
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.seen import Ids, seen
from tests.helpers.tasks import DEADLINE_SECONDS, Tasks, running
from tfdist.cluster import Task
from tfdist.coordination.connections import connections_to
from tfdist.coordination.serving import tell_to_begin_anew
from tfdist.errors import TaskLostError

WORKERS, PS = 2, 2
ROWS, BATCH = 1200, 10
STEPS = ROWS // BATCH
# More than the longest execution takes, tracing and starting included.
PATIENCE_SECONDS = 4.0


class At(keras.callbacks.Callback):
    """Does something in the middle of training or evaluating, once."""

    def __init__(self, batch: int, do: Callable[[], None], *, testing: bool = False) -> None:
        super().__init__()
        self._batch, self._do, self._testing = batch, do, testing
        self.at: float | None = None

    def _maybe(self, batch: int) -> None:
        if self.at is None and batch >= self._batch:
            self.at = time.monotonic()
            self._do()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._testing:
            self._maybe(batch)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._testing:
            self._maybe(batch)


class Telling(keras.Model):
    """Writes a line to the log of the worker that makes a step."""

    def train_step(self, data: Any) -> Any:
        tf.print("step", output_stream=sys.stderr)
        return super().train_step(data)


def steps_of(folder: Path, worker: int) -> int:
    """How many a worker has made, over all of its starts."""
    return (folder / f"worker-{worker}.log").read_text(errors="replace").count("step\n")


def make_model(strategy: tfdist.ParameterServerStrategy) -> keras.Model:
    with strategy.scope():
        inputs = keras.Input((4,))
        model = Telling(inputs, keras.layers.Dense(1)(keras.layers.Dense(8, "tanh")(inputs)))
        model.compile(keras.optimizers.SGD(1e-6), "mse", metrics=[Ids(), "mae"])
    return model


def data(folder: Path, how: str) -> Any:
    x, y = np.random.RandomState(0).randn(ROWS, 4).astype("float32"), np.arange(ROWS, dtype="float32")[:, None]
    if how == "graph":
        return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(ROWS, seed=1).batch(BATCH)
    if how == "records":
        pattern = str(folder / "x-*.tfrecord")
        if not list(folder.glob("x-*")):
            tfdist.data.write_tfrecords({"x": x, "y": y}, pattern, num_shards=3, progress=False)
        records = tfdist.data.read_tfrecords(pattern, batch_size=BATCH, label="y", shuffle=True)
        return records.map(lambda features, label: (features["x"], label))
    return tf.data.Dataset.from_generator(
        lambda: ((x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, ROWS, BATCH)),
        output_signature=(tf.TensorSpec([None, 4]), tf.TensorSpec([None, 1])),
    )


def main(folder: Path) -> None:
    results: dict[str, Any] = {}
    with running(folder, workers=WORKERS, ps=PS) as (cluster, tasks):
        try:
            run(tfdist.ParameterServerStrategy(cluster, patience_seconds=PATIENCE_SECONDS), tasks, folder, results)
        finally:
            (folder / "results.pickle").write_bytes(pickle.dumps(results))


def run(strategy: tfdist.ParameterServerStrategy, tasks: Tasks, folder: Path, results: dict[str, Any]) -> None:
    model = make_model(strategy)
    first, second = Task("worker", 0), Task("worker", 1)

    def kill(*which: Task) -> None:
        for task in which:
            tasks.signal(task, signal.SIGKILL)

    def restart(*which: Task) -> None:
        kill(*which)
        for task in which:
            tasks.start(task)

    def fit_with_both(name: str) -> None:
        """Fits until the second worker takes part again."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        fit(name, "graph")
        while results[name]["steps of the second worker"] == 0 and time.monotonic() < deadline:
            fit(name, "graph")

    def stop(task: Task) -> None:
        """With a tensor over there that goes: the request to free it is answered when the worker wakes up."""
        with tf.device(f"/job:worker/task:{task.index}/device:CPU:0"):
            there = tf.constant([1.0, 2.0])
        tasks.signal(task, signal.SIGSTOP)
        del there

    def lose_connections(address: str) -> None:
        """As a firewall does that forgets them: both sides find that they are gone, in the middle of executions."""
        for connection in connections_to([address]):
            with connection:
                connection.shutdown(socket.SHUT_RDWR)

    def fit(name: str, how: str, *callbacks: At, epochs: int = 1) -> None:
        before, begun, made = int(model.optimizer.iterations), time.monotonic(), steps_of(folder, 1)
        history = model.fit(data(folder, how), epochs=epochs, callbacks=list(callbacks), verbose=0)
        results[name] = {
            "counts": dict(seen),
            "epochs": len(history.history["loss"]),
            "applied": int(model.optimizer.iterations) - before,
            "reported": strategy.reported_steps,
            "repeated": strategy.repeated_steps,
            "steps of the second worker": steps_of(folder, 1) - made,
            "seconds": time.monotonic() - (callbacks[0].at if callbacks and callbacks[0].at else begun),
        }
        print(name, {key: value for key, value in results[name].items() if key != "counts"}, flush=True)

    fit("nothing", "feed")
    for how in ("feed", "graph", "records"):
        fit(f"restarted {how}", how, At(30, lambda: restart(second)))
        fit_with_both("restarted")
    fit("across an epoch's end", "feed", At(STEPS - 3, lambda: restart(second)), epochs=2)
    fit("all restarted", "records", At(30, lambda: restart(first, second)))

    def evaluate(callbacks: list[At]) -> list[float]:
        return model.evaluate(data(folder, "graph"), callbacks=callbacks, verbose=0)

    expected = evaluate([])
    received = evaluate([At(30, lambda: restart(second), testing=True)])
    results["evaluate"] = {"expected": expected, "received": received, "counts": dict(seen)}
    fit_with_both("restarted")
    for how in ("feed", "records"):
        fit(f"stopped {how}", how, At(30, lambda: stop(second)))
        tasks.signal(second, signal.SIGCONT)
        fit_with_both(f"awake again {how}")
    fit("connections lost", "feed", At(30, lambda: lose_connections(strategy.flights.cluster.peers[second])))
    fit_with_both("connected again")
    fit("told to begin anew", "feed", At(30, lambda: tell_to_begin_anew(second)))
    fit_with_both("begun anew")
    fit("gone for good", "records", At(30, lambda: kill(second)))

    at = At(30, lambda: kill(Task("ps", 1)))
    try:
        model.fit(data(folder, "feed"), callbacks=[at], verbose=0)
    except TaskLostError as error:
        results["ps"] = {"error": str(error), "seconds": time.monotonic() - (at.at or 0.0)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # TensorFlow's own end waits for parameter servers that are gone.
    sys.stdout.flush()
    os._exit(0)
