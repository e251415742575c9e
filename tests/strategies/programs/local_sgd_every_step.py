"""Plain SGD, averaged after every step, and the synchronous strategy, in one process.

`python -m tests.strategies.programs.local_sgd_every_step OUTPUT DEVICES`
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.strategies.programs.local_sgd import make_strategy
from tests.strategies.programs.local_sgd_cases import BATCH_SIZE, features, flat, labels, loss, sgd


def train(strategy: Any) -> dict[str, np.ndarray]:
    """In float32, on batches of 8 rows and one of a single row."""
    keras.utils.set_random_seed(7)
    with strategy.scope():
        layers = [keras.layers.Dense(8, activation="tanh"), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((6,)), *layers])
        model.compile(sgd(), loss(), metrics=["accuracy"])
    x, y = features().astype("float32"), labels()
    options = {"batch_size": BATCH_SIZE, "epochs": 2, "shuffle": False, "verbose": 0}
    history = model.fit(x, y, validation_data=(x, y), **options).history
    found = {name: np.asarray(values) for name, values in history.items()}
    return {**found, "weights": flat(model.get_weights()), "predictions": model.predict(x, verbose=0)}


def main(output: Path, devices: int) -> None:
    local = make_strategy(devices, sync_every_steps=1)
    found = {"local": train(local)}
    if local.num_workers == 1:
        names = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices("CPU")]
        found["synchronous"] = train(tfdist.MirroredStrategy(names))
    else:
        found["synchronous"] = train(tfdist.MultiWorkerMirroredStrategy())
    (output / f"{local.worker_index}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
