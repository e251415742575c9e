"""Reads shares of TFRecords, which in a job of its own depend on the number of workers."""

from __future__ import annotations

import keras
import tensorflow as tf

import tfdist
from tfdist.data.samples import FOLDER

FEATURES = {"image": tfdist.data.String(), "label": tfdist.data.Tensor([], "int64")}


def decode(features: dict[str, tf.Tensor], label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    pixels = tf.io.decode_raw(features["image"], tf.uint8)
    return tf.ensure_shape(tf.cast(pixels, tf.float32) / 16.0, [None, 64]), label


strategy = tfdist.MultiWorkerMirroredStrategy()
with strategy.scope():
    data = tfdist.data.read_tfrecords(
        str(FOLDER / "train-*.tfrecord"), FEATURES, batch_size=30, label="label", shuffle="local", seed=3
    ).map(decode)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(data, epochs=1, verbose=0)
