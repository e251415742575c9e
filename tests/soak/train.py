"""What a long job trains, on each task: `python -m tests.soak.train FOLDER EPOCHS ROWS`; leaves FOLDER/weights.npz.

MNIST, a small CNN with dropout and Adam. Every task notes its process id in FOLDER.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfdist

BATCH = 96
EVERY_STEPS = 50


def data(rows: int) -> tf.data.Dataset:
    with np.load(Path(os.environ["TFDIST_DATA_DIR"]) / "mnist.npz") as mnist:
        x, y = mnist["x_train"][:rows, ..., None].astype("float32") / 255, mnist["y_train"][:rows].astype("int32")
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(rows, seed=3).batch(BATCH, drop_remainder=True)


def build() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 5, strides=2, activation="relu"),
            layers.Conv2D(16, 5, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10),
        ]
    )


def main(folder: Path, epochs: int, rows: int) -> None:
    strategy = tfdist.MultiWorkerMirroredStrategy()
    (folder / f"pid-{strategy.worker_index}").write_text(str(os.getpid()))
    keras.utils.set_random_seed(11)
    with strategy.scope():
        model = build()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    checkpoint = tfdist.callbacks.Checkpoint(folder / "checkpoints", every_steps=EVERY_STEPS)
    history = model.fit(data(rows), epochs=epochs, verbose=2 if strategy.is_chief else 0, callbacks=[checkpoint])
    if strategy.is_chief:
        np.savez(folder / "weights.npz", *model.get_weights(), history=[*history.history["loss"]])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
