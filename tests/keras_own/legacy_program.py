"""Trains a tf_keras model: `legacy_program.py one|mirrored|multi_worker RESULT`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf

import tfdist

ROWS, BATCH, EPOCHS = 24, 8, 2


def make_strategy(name: str) -> tf.distribute.Strategy:
    if name == "mirrored":
        return tfdist.MirroredStrategy(["CPU:0", "CPU:1"])
    if name == "multi_worker":
        return tfdist.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def make_model() -> Any:
    model = tf.keras.Sequential([tf.keras.layers.Dense(8, "relu", input_shape=[4]), tf.keras.layers.Dense(3)])
    model.compile(
        tf.keras.optimizers.SGD(0.1, momentum=0.9),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def make_data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    return random.normal(size=[ROWS, 4]).astype("float32"), random.integers(0, 3, [ROWS])


def train(strategy: tf.distribute.Strategy) -> dict[str, np.ndarray]:
    """Weights, history, evaluation and predictions."""
    tf.keras.utils.set_random_seed(1)
    with strategy.scope():
        model = make_model()
    x, y = make_data()
    history = model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0).history
    results = {f"weight {index}": value for index, value in enumerate(model.get_weights())}
    results |= {f"history {name}": np.array(values) for name, values in history.items()}
    results["evaluate"] = np.array(model.evaluate(x, y, batch_size=BATCH, verbose=0))
    results["predict"] = model.predict(x, batch_size=BATCH, verbose=0)
    return results


def result_path(path: str, strategy: tf.distribute.Strategy) -> Path:
    """Each worker's own."""
    return Path(path).with_suffix(f".{getattr(strategy, 'worker_index', 0)}.npz")


def main(name: str, path: str) -> None:
    if not tf.keras.__name__.startswith("tf_keras"):
        raise RuntimeError(f"Expected: tf.keras from tf_keras. Received: {tf.keras.__name__}")
    cpu = tf.config.list_physical_devices("CPU")[0]
    if name == "mirrored":
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = make_strategy(name)
    np.savez(result_path(path, strategy), **train(strategy))


if __name__ == "__main__":
    main(*sys.argv[1:])
