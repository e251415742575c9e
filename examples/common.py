"""What the examples share: a small CNN, and the data to train it on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfdist

IMAGE_SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1)}


def build_model(data: str = "digits") -> keras.Model:
    """A small CNN for ten classes of images."""
    return keras.Sequential(
        [
            keras.layers.Input(IMAGE_SHAPES[data]),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def compile_model(model: keras.Model, learning_rate: float = 1e-3) -> None:
    """Adam, cross-entropy of the logits, accuracy."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def load_data(name: str, batch_size: int) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Training and held-out batches of (image, label); `batch_size` counts all workers' rows.

    "digits" comes with tfdist as TFRecord files: each worker parses only its own rows.
    "mnist" is an array on every worker: the strategy cuts the same batches, one slice a replica.
    """
    if name == "digits":
        train = tfdist.data.digits("train", batch_size=batch_size, shuffle=True)
        return train, tfdist.data.digits("test", batch_size=batch_size)
    train, test = _load_mnist()
    batches = [
        tf.data.Dataset.from_tensor_slices((images[..., None] / 255.0, labels)) for images, labels in (train, test)
    ]
    # One seed for all workers: they must see the same batches.
    shuffled = batches[0].shuffle(len(train[0]), seed=0)
    return shuffled.batch(batch_size), batches[1].batch(batch_size)


def load_arrays(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Images, uint8 of IMAGE_SHAPES, and labels, for "train" and "test"."""
    if name == "mnist":
        parts = [(images[..., None].astype("uint8"), labels) for images, labels in _load_mnist()]
    else:
        alone = tfdist.data.ShardOptions()  # all of them, on any worker
        batches = [next(iter(tfdist.data.digits(split, batch_size=2000, shard=alone))) for split in ("train", "test")]
        parts = [((images.numpy() * 255).astype("uint8"), labels.numpy()) for images, labels in batches]
    return {
        split: {"image": images, "label": labels.astype("int64")}
        for split, (images, labels) in zip(("train", "test"), parts, strict=True)
    }


def write_on_chief(path: str, write: Callable[[], object]) -> None:
    """Calls `write` on the chief of the strategy in scope, unless `path` is there; returns when it is, on all workers.

    `path` must be in a folder that all workers see.
    """

    def write_if_missing() -> None:
        if not tf.io.gfile.exists(path):
            write()

    strategy = tf.distribute.get_strategy()
    if hasattr(strategy, "on_chief"):
        strategy.on_chief(write_if_missing, name=path)
    else:
        write_if_missing()


def _load_mnist():
    folder = os.environ.get("TFDIST_DATA_DIR")
    if folder:  # where there is no network
        with np.load(Path(folder) / "mnist.npz") as file:
            x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    else:
        (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
    return (x.astype("float32"), y), (x_test.astype("float32"), y_test)
