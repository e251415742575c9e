"""Trains cases under LocalSGDStrategy.

`python -m tests.strategies.programs.local_sgd OUTPUT WORKERS DEVICES CASE...`; DEVICES is how many logical CPUs each
of the processes has.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.strategies.programs.local_sgd_cases import BATCH_SIZE, CASES, Case, build, features, flat, labels, loss
from tfdist._compat.keras_averaging import averaging_of
from tfdist.gradients.averaging import AveragingOptions


def make_strategy(devices: int, **options: Any) -> tfdist.LocalSGDStrategy:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    return tfdist.LocalSGDStrategy(devices=[f"CPU:{i}" for i in range(devices)], **options)


class Looks(keras.callbacks.Callback):
    """Keeps the weights that a callback of the user's sees, and saves in the middle of an epoch."""

    def __init__(self, case: Case, folder: Path) -> None:
        super().__init__()
        self.case, self.folder, self.found = case, folder, {}
        self.epoch = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch + 1 == self.case.saved_after:
            path = self.folder / f"saved-{self.epoch}.weights.h5"
            self.model.save_weights(path)
            self.found[f"file {self.epoch}"] = read_back(path, self.case)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch + 1
        self.found[f"weights {epoch}"] = flat(self.model.get_weights())
        self.found[f"loss {epoch}"] = np.asarray(logs["loss"])
        if self.case.evaluated:
            self.found[f"val_loss {epoch}"] = np.asarray(logs["val_loss"])


def read_back(path: Path, case: Case) -> np.ndarray:
    """A file's weights, in plain Keras."""
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        model = build(case)
    model.load_weights(path)
    return flat(model.get_weights())


def run(strategy: tfdist.LocalSGDStrategy, case: Case, folder: Path) -> dict[str, np.ndarray]:
    strategy.averaging_options = AveragingOptions(**case.options)
    with strategy.scope():
        model = build(case)
        model.compile(case.optimizer(), loss(), steps_per_execution=case.steps_per_execution)
    x, y = features(), labels()
    looks = Looks(case, folder)
    options = {"epochs": case.epochs, "shuffle": False, "verbose": 0}
    options |= {"validation_data": (x, y)} if case.evaluated else {}
    model.fit(x, y, batch_size=BATCH_SIZE, callbacks=[looks], **options)
    state = averaging_of(model.optimizer).gathered_rule_state()
    averages = [v.numpy()[np.newaxis] for v in model.optimizer.variables if v.path.endswith("_average")]
    averages = [np.repeat(average, strategy.num_replicas_in_sync, 0) for average in averages]
    slots = [np.reshape(s, [len(s), -1]) for s in [*averages, *state]]
    predictions = {"predictions": model.predict(x, batch_size=7, verbose=0)} if case.evaluated else {}
    return {
        **looks.found,
        **predictions,
        "slots": np.concatenate(slots, 1) if slots else np.zeros(0),
        "iterations": np.asarray(int(model.optimizer.iterations)),
        "weights": flat(model.get_weights()),
    }


def main(output: Path, devices: int, names: list[str]) -> None:
    strategy = make_strategy(devices, sync_every_steps=1)
    keras.config.set_floatx("float64")
    found: dict[str, Any] = {}
    for name in names:
        try:
            found[name] = run(strategy, CASES[name], output)
        except Exception:
            found[name] = traceback.format_exc()
            if strategy.num_workers > 1:
                break  # the others wait in a collective
    (output / f"{strategy.worker_index}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[3]), sys.argv[4:])
