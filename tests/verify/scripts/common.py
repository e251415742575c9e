"""What the scripts here train on, and a small classifier."""

import keras
import numpy as np
import tensorflow as tf

FEATURES = 6
CLASSES = 3
BATCH = 16


def arrays(rows=64):
    """Features and labels, the same in every process."""
    random = np.random.RandomState(0)
    return random.randn(rows, FEATURES).astype("float32"), random.randint(0, CLASSES, rows)


def batches(rows=64, batch_size=BATCH):
    """A dataset of global batches."""
    return tf.data.Dataset.from_tensor_slices(arrays(rows)).batch(batch_size)


def layers():
    """Two dense layers."""
    return [keras.Input((FEATURES,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(CLASSES)]


def cross_entropy():
    """Of logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
