"""The optimizer counts the steps that were made, not the one for which there was no batch."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

import tfdist

pytestmark = pytest.mark.unit


def test_data_of_unknown_size_is_no_step_longer() -> None:
    """Keras alone counts one step more an epoch: its count depends on no batch, so it runs where there is none."""
    with tfdist.OneDeviceStrategy("CPU:0").scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
    rows = tf.data.Dataset.range(24).map(lambda i: (tf.cast([i], tf.float32), tf.cast([i], tf.float32)))
    model.fit(rows.filter(lambda x, y: True).batch(8), epochs=3, verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 3 * 3
