"""Rows shuffled by a generator that has no seed."""

import keras
import numpy as np
import tensorflow as tf
from common import BATCH, arrays, cross_entropy, layers

import tfdist

strategy = tfdist.MirroredStrategy()
features, labels = arrays()
order = np.random.default_rng().permutation(len(labels))
dataset = tf.data.Dataset.from_tensor_slices((features[order], labels[order])).batch(BATCH)
with strategy.scope():
    model = keras.Sequential(layers())
    model.compile("sgd", cross_entropy())
model.fit(dataset, epochs=2, verbose=0)
