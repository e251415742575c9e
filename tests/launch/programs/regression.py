"""What the programs train: random rows, shuffled alike in each job, and what is compared afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def batches(rows: int, batch_size: int) -> tf.data.Dataset:
    """Global batches of four features and a value."""
    random = np.random.RandomState(3)
    arrays = random.randn(rows, 4).astype("float32"), random.randn(rows, 1).astype("float32")
    return tf.data.Dataset.from_tensor_slices(arrays).shuffle(rows, seed=5).batch(batch_size)


def build(strategy: Any, *layers: Any) -> keras.Model:
    """A compiled model of the strategy's: these layers, and one that gives the value."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), *(make() for make in layers), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def keep_result(folder: Path, model: keras.Model, history: Any) -> None:
    """FOLDER/result.npz: losses and weights."""
    arrays = {f"weight-{number}": array for number, array in enumerate(model.get_weights())}
    np.savez(folder / "result.npz", loss=history.history["loss"], **arrays)
