"""Trains on TFRecords with a backup every few steps; killed at some moment, and started again.

`python -m tests.data.programs.resume SETUP FOLDER --shuffle=S --batch=B [--kill=EPOCH,BATCH|rename,N] [--victim=W]`

The model has a weight for each record. Plain gradient descent with rate 1 on minus its mean raises it by 1/rows each
time its record is used, so the weights count how often each was.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.setups import Setup

RECORDS, EPOCHS, FILES, SAVE_EVERY = 96, 3, 3, 2


class Counts(keras.layers.Layer):
    """A weight for each record."""

    def build(self, input_shape: Any) -> None:
        self.counts = self.add_weight(shape=(RECORDS,), initializer="zeros", name="counts")

    def call(self, ids: Any) -> Any:
        return tf.gather(self.counts, ids)


class Kill(keras.callbacks.Callback):
    """Ends the process at a batch of an epoch, after callbacks that stand before it."""

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self._at, self._epoch = (epoch, batch), -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_at_rename(number: int) -> None:
    """End the process right before it renames a file for the number-th time: in the middle of a save."""
    rename, seen = tf.io.gfile.rename, [0]

    def counting(*args: Any, **kwargs: Any) -> None:
        seen[0] += 1
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*args, **kwargs)

    tf.io.gfile.rename = counting


def write(folder: Path) -> str:
    """Records with their numbers; the first process to come writes them."""
    pattern = str(folder / "ids-*.tfrecord")
    for file in range(FILES):
        path = folder / f"ids-{file}.tfrecord"
        if path.exists():
            continue
        temporary = f"{path}.{os.getpid()}"
        with tf.io.TFRecordWriter(temporary) as out:
            for record in range(file, RECORDS, FILES):
                value = tf.train.Feature(int64_list=tf.train.Int64List(value=[record]))
                example = tf.train.Example(features=tf.train.Features(feature={"id": value}))
                out.write(example.SerializeToString())
        os.replace(temporary, path)
    return pattern


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("setup")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shuffle")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--steps_per_execution", type=int, default=1)
    parser.add_argument("--kill")
    parser.add_argument("--victim", type=int, default=0)
    options = parser.parse_args()
    setup = Setup.named(options.setup)
    with setup.scope():
        ids = keras.Input((), dtype="int64")
        model = keras.Model(ids, Counts()(ids))
        optimizer = keras.optimizers.SGD(1.0) if options.optimizer == "sgd" else keras.optimizers.Adam(0.1)
        model.compile(optimizer, lambda y, y_pred: -y_pred, steps_per_execution=options.steps_per_execution)
        data = tfdist.data.read_tfrecords(
            write(options.folder.parent),
            {"id": tf.io.FixedLenFeature([], tf.int64)},
            batch_size=options.batch,
            shuffle={"no": False}.get(options.shuffle, options.shuffle),
            seed=7,
        ).map(lambda features: (features["id"], features["id"]))
    worker = getattr(setup.strategy, "worker_index", 0)
    callbacks: list[Any] = [
        keras.callbacks.BackupAndRestore(options.folder / "backup", save_freq=SAVE_EVERY, delete_checkpoint=False)
    ]
    if options.kill and worker == options.victim:
        first, second = options.kill.split(",")
        if first == "rename":
            kill_at_rename(int(second))
        else:
            callbacks.append(Kill(int(first), int(second)))
    model.fit(data, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    np.save(options.folder / f"weights-{worker}.npy", model.get_weights()[0])


if __name__ == "__main__":
    main()
