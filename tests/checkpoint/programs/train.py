"""Trains with checkpoints; killed at some moment, and started again.

`python -m tests.checkpoint.programs.train SETUP FOLDER [--data=D] [--micro_batches=K] [--kill=WHERE] [--victim=W] ...`

WHERE is `EPOCH,BATCH` (when its step is done), `begin,N` (before the N-th step of the process), `test,N` (in the N-th
step of validation), `trace,N` (in the N-th trace of the train step), or `write,N` (in the middle of the N-th file of a
checkpoint). Victims get SIGKILL, or `--signal=TERM`; `--hold=EPOCH,BATCH` waits there for a file `go-on`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.setups import HYBRID, WORKERS, Setup
from tfdist.checkpoint import files
from tfdist.checkpoint.sigterm import read_action

RECORDS, BATCH, EPOCHS = 92, 8, 4
STEPS = 12
#: Of what a signal is handled by, which stands first in `struct sigaction` on Linux.
POINTER_BYTES = 8


class Kill(keras.callbacks.Callback):
    """Ends the process, or asks it to end."""

    def __init__(self, where: str, signum: signal.Signals) -> None:
        super().__init__()
        self._signal = signum
        kind, number = where.split(",")
        self._kind, self._number, self._epoch, self._count = kind, int(number), 0, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._counted("begin")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (str(self._epoch), self._number) == (self._kind, batch):
            os.kill(os.getpid(), self._signal)

    def on_trace(self) -> None:
        self._counted("trace")

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._counted("test")

    def _counted(self, kind: str) -> None:
        if self._kind == kind:
            self._count += 1
            if self._count == self._number:
                os.kill(os.getpid(), self._signal)


class Hold(keras.callbacks.Callback):
    """Waits behind a step for `go-on`; says when it waits, and when SIGTERM has come."""

    def __init__(self, where: str, folder: Path, worker: int) -> None:
        super().__init__()
        self._where, self._folder, self._worker, self._epoch = where, folder, worker, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if f"{self._epoch},{batch}" != self._where:
            return
        (self._folder / f"holding-{self._worker}").touch()
        deadline = time.monotonic() + 60
        while not (self._folder / "go-on").exists():
            assert time.monotonic() < deadline
            if signal.getsignal(signal.SIGTERM).__self__.is_set:
                (self._folder / f"signalled-{self._worker}").touch()
            time.sleep(0.02)


def kill_in_write(number: int) -> None:
    """End the process when half of a file is on disk."""
    write, seen = files._write, [0]

    def counting(path: Path, content: Any) -> Any:
        seen[0] += 1
        if seen[0] == number:
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content)

    files._write = counting


class Order(keras.callbacks.Callback):
    """Remembers which records were used, in order; read from a variable that the model keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[int] = []

    def get_state(self) -> dict[str, Any]:
        return {"ids": self.ids}

    def set_state(self, state: dict[str, Any]) -> None:
        self.ids = state["ids"]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ids += [int(one) for one in self.model.last_ids.numpy() if one >= 0]


class Decay(keras.callbacks.Callback):
    """Changes the learning rate at the beginning of each epoch by a random number, and by what it was."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        optimizer.learning_rate = float(optimizer.learning_rate) * (0.9 + 0.05 * np.random.rand())


@keras.saving.register_keras_serializable()
class WithIds(keras.Model):
    """Keeps the ids of the last batch in a variable, on one device."""

    on_trace: Callable[[], None] | None = None

    def train_step(self, data: Any) -> Any:
        if self.on_trace is not None:
            self.on_trace()
        (ids, x), y = data
        if hasattr(self, "last_ids"):
            self.last_ids.assign(tf.pad(ids, [[0, BATCH - tf.shape(ids)[0]]], constant_values=-1))
        return super().train_step(((ids, x), y))


def make_model(options: Any, keeps_ids: bool) -> keras.Model:
    ids, x = keras.Input((), dtype="int64"), keras.Input((6,))
    hidden = keras.layers.Dense(16, activation="relu")(x)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Dropout(0.3)(hidden)
    if options.embedding:
        embedded = keras.layers.Embedding(RECORDS, 4)(ids)
        hidden = keras.layers.Concatenate()([hidden, embedded])
    model = WithIds([ids, x], keras.layers.Dense(3)(hidden))
    if keeps_ids:
        model.last_ids = tf.Variable(tf.fill([BATCH], tf.constant(-1, tf.int64)), trainable=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = keras.optimizers.schedules.CosineDecay(0.02, 100) if options.schedule else 0.02
    optimizer = keras.optimizers.Adam(rate, use_ema=options.ema, ema_momentum=0.9)
    model.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=options.steps_per_execution)
    return model


def rows() -> tuple[Any, Any]:
    random = np.random.RandomState(5)
    ids = np.arange(RECORDS)
    return (ids, random.randn(RECORDS, 6).astype("float32")), random.randint(0, 3, RECORDS)


def make_data(options: Any) -> Any:
    """Training data: `dataset` shuffles, `unknown` doesn't know its length, `repeat` has epochs of other lengths."""
    if options.data == "tfrecords":
        return tfrecords(options.folder.parent)
    dataset = tf.data.Dataset.from_tensor_slices(rows()).shuffle(RECORDS, seed=3)
    if options.data == "unknown":
        dataset = dataset.filter(lambda x, y: x[0] >= 0)
    if options.data == "repeat":
        return dataset.repeat().batch(BATCH)
    return dataset.batch(BATCH).prefetch(2)


def tfrecords(folder: Path) -> tf.data.Dataset:
    number = tfdist.data.Tensor((), "int64")
    features = {"id": number, "x": tfdist.data.Tensor((6,)), "y": number}
    (ids, x), y = rows()
    pattern = str(folder / "rows-*.tfrecord")
    strategy = tf.distribute.get_strategy()
    examples = [{"id": ids[i], "x": x[i], "y": y[i]} for i in range(RECORDS)]

    def write() -> None:
        if not list(folder.glob("rows-*.tfrecord")):
            tfdist.data.write_tfrecords(examples, pattern, features, num_shards=3)

    getattr(strategy, "on_chief", lambda task, name: task())(write, name="rows")
    data = tfdist.data.read_tfrecords(pattern, batch_size=BATCH, label="y", shuffle="global", seed=7)
    return data.map(lambda features, label: ((features["id"], features["x"]), label))


def fit(model: keras.Model, options: Any, callbacks: list[Any]) -> Any:
    validation = tf.data.Dataset.from_tensor_slices(rows()).batch(32)
    if options.data == "arrays":
        x, y = rows()
        return model.fit(
            x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks, validation_data=validation
        )
    steps = {"repeat": 7}.get(options.data)
    return model.fit(
        make_data(options),
        epochs=options.epochs,
        steps_per_epoch=steps,
        verbose=0,
        callbacks=callbacks,
        validation_data=validation,
    )


def fit_or_note_exit(model: keras.Model, options: Any, callbacks: list[Any], worker: int) -> Any:
    """Keeps the exit code where a launcher is between the test and this process."""
    try:
        return fit(model, options, callbacks)
    except SystemExit as end:
        (options.folder / f"exit-{worker}").write_text(str(end.code))
        raise


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("setup", choices=WORKERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="dataset")
    parser.add_argument("--micro_batches", type=int, default=1)
    parser.add_argument("--every_steps", type=int, default=5)
    parser.add_argument("--steps_per_execution", type=int, default=1)
    parser.add_argument("--leftover", default="flush")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--local_steps", type=int, help="train under LocalSGDStrategy, with so many to an averaging")
    for flag in ("early_stopping", "schedule", "ema", "embedding", "every_epoch"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--kill")
    parser.add_argument("--victims", default="0")
    parser.add_argument("--signal", default="KILL")
    parser.add_argument("--hold")
    return parser.parse_args()


def make_callbacks(options: Any, worker: int, keeps_ids: bool) -> list[Any]:
    every = None if options.every_epoch else options.every_steps
    callbacks: list[Any] = [tfdist.callbacks.Checkpoint(options.folder / "checkpoints", every_steps=every)]
    if not options.schedule:
        callbacks += [Decay(), keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.5, factor=0.5)]
    if options.early_stopping:
        callbacks.append(keras.callbacks.EarlyStopping("loss", patience=2, min_delta=0.5, restore_best_weights=True))
    callbacks += [Order()] if keeps_ids else []
    if options.kill and str(worker) in options.victims.split(","):
        if options.kill.startswith("write"):
            kill_in_write(int(options.kill.split(",")[1]))
        else:
            callbacks.append(Kill(options.kill, signal.Signals[f"SIG{options.signal}"]))
    if options.hold:
        callbacks.append(Hold(options.hold, options.folder, worker))
    return callbacks


def main() -> None:
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.local_steps:
        setup = Setup(tfdist.LocalSGDStrategy(sync_every_steps=options.local_steps), options.setup)
    else:
        setup = Setup.named(options.setup)
    worker = getattr(setup.strategy, "worker_index", 0)
    keeps_ids = setup.replicas == 1 and options.steps_per_execution == 1 and setup.name not in HYBRID
    if options.micro_batches > 1:
        setup.strategy.gradient_accumulation_steps = tfdist.gradients.AccumulationOptions(
            steps=options.micro_batches, leftover=options.leftover
        )
    with setup.scope():
        model = make_model(options, keeps_ids)
        callbacks = make_callbacks(options, worker, keeps_ids)
        model.on_trace = next((one.on_trace for one in callbacks if isinstance(one, Kill)), None)
        before = read_action()[:POINTER_BYTES]
        history = fit_or_note_exit(model, options, callbacks, worker)
        assert read_action()[:POINTER_BYTES] == before, "TensorFlow's handler is back, where there are several workers"
    order = [one.ids for one in callbacks if isinstance(one, Order)]
    result = {"history": history.history, "epochs": history.epoch, "order": order}
    (options.folder / f"result-{worker}.json").write_text(json.dumps(result))
    optimizer = {f"optimizer {i}": v.numpy() for i, v in enumerate(model.optimizer.variables)}
    weights = {f"weights {i}": v.numpy() for i, v in enumerate(model.variables)}
    np.savez(options.folder / f"result-{worker}.npz", **optimizer, **weights)


if __name__ == "__main__":
    main()
