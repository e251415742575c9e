"""What every process of the demonstration runs: train the CNN on the digits and note the result.

tfdist launch --workers=2 examples/demo_task.py OUTPUT_DIR
python examples/demo_task.py OUTPUT_DIR --one_device
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

import keras
import numpy as np
from common import build_model, compile_model, load_data

import tfdist

BATCH_SIZE = 64
EPOCHS = 12


class Stopwatch(keras.callbacks.Callback):
    """Seconds of each epoch but the first, in which TensorFlow traces the step."""

    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if epoch > 0:
            self.seconds.append(time.perf_counter() - self._start)


def train(strategy: tfdist.MultiWorkerMirroredStrategy | None) -> tuple[keras.Model, float]:
    """Trains under a strategy, or without one on one device; returns the model, examples/s."""
    shows = strategy is None or strategy.is_chief
    keras.utils.set_random_seed(7)
    # In float32 a tie in max pooling or at a ReLU's zero may fall the other way by rounding, and then the runs part.
    keras.config.set_floatx("float64")
    with strategy.scope() if strategy else contextlib.nullcontext():
        data, _ = load_data("digits", BATCH_SIZE)
        model = build_model()
        compile_model(model)
    stopwatch = Stopwatch()
    model.fit(data, epochs=EPOCHS, shuffle=False, verbose=int(shows), callbacks=[stopwatch])
    examples = 1437  # in the train split
    return model, examples / float(np.median(stopwatch.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--one_device", action="store_true")
    args = parser.parse_args()

    strategy = None if args.one_device else tfdist.MultiWorkerMirroredStrategy()
    model, speed = train(strategy)
    with strategy.scope() if strategy else contextlib.nullcontext():
        _, held_out = load_data("digits", BATCH_SIZE)
    results = {"examples_per_second": speed}
    results |= model.evaluate(held_out, verbose=0, return_dict=True)
    if strategy:
        model.save(args.output / "model.keras")  # on every worker: only the chief writes
    else:  # a process without a strategy loads what the two workers saved
        reloaded = keras.models.load_model(args.output / "model.keras")
        again = reloaded.evaluate(held_out, verbose=0, return_dict=True)
        results["reloaded_accuracy"] = again["accuracy"]
    name = "one_device" if strategy is None else f"worker-{strategy.worker_index}"
    np.savez(args.output / f"{name}.npz", *model.get_weights())
    (args.output / f"{name}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
