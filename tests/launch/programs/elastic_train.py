"""Trains with checkpoints in an elastic job, slowly while the hosts are to change.

`python -m tests.launch.programs.elastic_train FOLDER [--slowly]`
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import tfdist
from tests.launch.programs.regression import batches, build, keep_result

# 13 batches an epoch, the last of which is smaller, so that replicas have unequal shares of it.
ROWS, BATCH, EPOCHS = 100, 8, 6
STEPS = 13


class Record(keras.callbacks.Callback):
    """Notes each step that is done, on the chief, and how many workers made it."""

    def __init__(self, path: Path, workers: int, slowly: bool) -> None:
        super().__init__()
        self._path, self._workers, self._slowly, self._epoch = path, workers, slowly, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        with self._path.open("a") as file:
            file.write(f"{self._workers} {self._epoch} {batch}\n")
        if self._slowly:
            time.sleep(self._seconds_to_wait())

    def _seconds_to_wait(self) -> float:
        """Hosts come in the first epochs, and go in the next; then nothing is left to wait for."""
        if self._workers == 2:
            return 0.15 if self._epoch < 5 else 0.0
        has_grown = " 2 " in self._path.with_name("sizes").read_text()
        return 0.3 if self._epoch < 2 and not has_grown else 0.0


class NoteRows(keras.layers.Layer):
    """Writes down how many rows a replica has at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._stream = f"file://{path.absolute()}"

    def call(self, inputs: Any) -> Any:
        with tf.control_dependencies([tf.print(tf.shape(inputs)[0], output_stream=self._stream)]):
            return tf.identity(inputs)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slowly", action="store_true")
    options = parser.parse_args()
    strategy = tfdist.MultiWorkerMirroredStrategy()
    keras.utils.set_random_seed(7)
    model = build(strategy, lambda: NoteRows(options.folder / "rows"), lambda: keras.layers.Dense(8, "relu"))
    callbacks: list[Any] = [tfdist.callbacks.Checkpoint(options.folder / "checkpoints")]
    if strategy.is_chief:
        with (options.folder / "sizes").open("a") as file:
            file.write(f" {strategy.num_workers} ")
        callbacks.append(Record(options.folder / "record", strategy.num_workers, options.slowly))
    history = model.fit(batches(ROWS, BATCH), epochs=EPOCHS, verbose=0, callbacks=callbacks)
    if strategy.is_chief:
        keep_result(options.folder, model, history)


if __name__ == "__main__":
    main()
