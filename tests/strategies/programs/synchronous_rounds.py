"""Fits under `tfdist.updates.Synchronous` that write down which gradient was applied in which round, and went wrong.

What is trained is a table with a row for each round and a column for each batch. The gradient of a batch that was
computed on the parameters of round r is -1 at (r, batch), so with SGD of rate 1 the table says in the end with what
weight each gradient was applied. One that was applied in a later round than its own would make its row's sum more
than 1, and a later row's less.

python -m tests.strategies.programs.synchronous_rounds OUTPUT [BACKUP_WORKERS]

With a number of backup workers, tasks are killed.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import tfdist
from tests.helpers.tasks import Tasks, running
from tests.strategies.programs.parameter_server_faults import At
from tfdist._compat import hooks
from tfdist.cluster import Cluster, Task
from tfdist.coordination.mailbox import Mailbox
from tfdist.coordination.pushes import Pushes
from tfdist.errors import TaskLostError
from tfdist.updates import Synchronous

WORKERS, PS, BATCHES = 3, 2, 90
#: Of the `fit` after one that was interrupted.
COUNT_AFTER = 60
SLOW_SECONDS, FAST_SECONDS = 0.2, 0.02


class Interrupted(Exception):
    """What a callback raises."""


class Table(keras.Model):
    """The table, and the steps of each worker, of which the first may take its time."""

    def __init__(self, slow_seconds: float) -> None:
        super().__init__()
        self._slow_seconds = slow_seconds
        self.table = self.add_weight(shape=(BATCHES, BATCHES), initializer="zeros")
        self.steps = self.add_weight(shape=(WORKERS,), initializer="zeros", trainable=False)
        self.built = True

    def call(self, inputs: Any) -> Any:
        return inputs

    def train_step(self, data: Any) -> dict[str, Any]:
        worker = hooks.current_step().seed_offset
        self.steps.assign_add(tf.one_hot(worker, WORKERS))
        row = tf.one_hot(tf.cast(self.optimizer.iterations.value, tf.int32), BATCHES)
        with tf.GradientTape() as tape:
            marked = row[:, None] * tf.one_hot(data[0], BATCHES)[None, :]
            loss = -tf.reduce_sum(self.table * marked)
        (gradient,) = tape.gradient(loss, [self.table.value])
        seconds = tf.where(tf.equal(worker, 0), self._slow_seconds, FAST_SECONDS)
        with tf.control_dependencies([gradient]):
            deadline = tf.timestamp() + tf.cast(seconds, tf.float64)
        waited = tf.while_loop(lambda i: tf.timestamp() < deadline, lambda i: (i + 1,), (tf.constant(0),))[0]
        with tf.control_dependencies([waited]):
            self.optimizer.apply([tf.identity(gradient)], [self.table])
        return {"loss": loss}


def batches(count: int = BATCHES) -> tf.data.Dataset:
    return tf.data.Dataset.range(count).batch(1)


class Left(keras.callbacks.Callback):
    """Notes how many gradients lie on the ps as a `fit` begins."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.found = left_of(self.model)


class Made(keras.callbacks.Callback):
    """Notes the chief's functions for gradients, as a `fit` trains its first batch and its last."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[set[tuple[str, int]]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.found = [*self.found[:1], {key for pushes in pushes_of(self.model) for key in pushes.on_chief}]


class Job:
    """One table.

    Args:
        strategy: Where it is.
        slow_seconds: What a step of the first worker takes.
    """

    def __init__(self, strategy: tfdist.ParameterServerStrategy, slow_seconds: float = FAST_SECONDS) -> None:
        self.strategy = strategy
        with self.strategy.scope():
            self.model = Table(slow_seconds)
            self.model.compile(keras.optimizers.SGD(1.0))

    def fit(self, *callbacks: Any, count: int = BATCHES) -> dict[str, Any]:
        history = self.model.fit(batches(count), verbose=0, callbacks=list(callbacks)).history
        staleness = self.strategy.staleness
        return {
            "table": self.model.table.numpy(),
            "iterations": int(self.model.optimizer.iterations),
            "steps of each worker": self.model.steps.numpy().tolist(),
            "counts": staleness.counts.tolist(),
            "dropped": staleness.dropped,
            "history": history,
            "reported": self.strategy.reported_steps,
            "left": left_of(self.model),
        }

    def interrupted(self) -> dict[str, Any]:
        """A fit that a callback ends in the middle, then another one."""

        def interrupt() -> None:
            raise Interrupted

        try:
            self.fit(At(10, interrupt))
        except Interrupted:
            self.strategy.flights.take_all()
            before, left = int(self.model.optimizer.iterations), left_of(self.model)
        self.model.table.assign(tf.zeros_like(self.model.table))
        begins = Left()
        found = self.fit(begins, count=COUNT_AFTER)
        return {**found, "before": before, "left by the interrupted": left, "left as the next begins": begins.found}


def left_of(model: keras.Model) -> int:
    """How many gradients lie on the ps."""
    return sum(left_in(mailbox) for pushes in pushes_of(model) for mailbox, _ in pushes.collected)


def pushes_of(model: keras.Model) -> list[Pushes]:
    return [one.pushes for one in model.train_function._functions.values()]


def left_in(mailbox: Mailbox) -> int:
    total = 0
    for envelope in mailbox._envelopes:
        with tf.device(envelope.device):
            total += int(tf.raw_ops.MapSize(dtypes=list(envelope.dtypes), shared_name=envelope.name))
    return total


@contextmanager
def killable(folder: Path) -> Iterator[tuple[Cluster, Tasks]]:
    """A cluster whose tasks can be killed."""
    folder.mkdir()
    with running(folder, workers=WORKERS, ps=PS) as job:
        yield job


def without_faults() -> Iterator[tuple[str, dict[str, Any]]]:
    with tfdist.cluster.local(workers=WORKERS, ps=PS) as cluster:
        for backup_workers in (0, 1):
            strategy = tfdist.ParameterServerStrategy(cluster, update=Synchronous(backup_workers))
            made = Made()
            found = Job(strategy, SLOW_SECONDS).fit(made)
            yield f"slow, {backup_workers}", {**found, "made": made.found}
            yield f"interrupted, {backup_workers}", Job(strategy).interrupted()


def with_faults(folder: Path, backup_workers: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Workers are killed, for good in the end, then a ps."""
    first, second, third = (Task("worker", index) for index in range(WORKERS))
    with killable(folder) as (cluster, tasks):
        # Patience is more than the longest execution takes, tracing included.
        update = Synchronous(backup_workers)
        strategy = tfdist.ParameterServerStrategy(cluster, update=update, patience_seconds=4.0)

        def at(batch: int, number: int, task: Task, *, start: bool = False) -> At:
            def do() -> None:
                tasks.signal(task, number)
                if start:
                    tasks.start(task)

            return At(batch, do)

        yield "restarted", Job(strategy).fit(at(20, signal.SIGKILL, second, start=True))
        yield "stopped", Job(strategy).fit(at(20, signal.SIGSTOP, third), at(60, signal.SIGCONT, third))
        yield "killed", Job(strategy).fit(at(20, signal.SIGKILL, first))
        yield "after", Job(strategy).fit()
        try:
            Job(strategy).fit(at(20, signal.SIGKILL, Task("ps", 1)))
        except TaskLostError as error:
            yield "ps", {"error": str(error)}


def main(output: Path, *backup_workers: str) -> None:
    results: dict[str, Any] = {}
    found = with_faults(output.parent / "tasks", int(backup_workers[0])) if backup_workers else without_faults()
    for name, result in found:
        results[name] = result
        output.write_bytes(pickle.dumps(results))
        print(name, {key: value for key, value in result.items() if key != "table"}, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
    # TensorFlow's own end waits for parameter servers that are gone.
    sys.stdout.flush()
    os._exit(0)
