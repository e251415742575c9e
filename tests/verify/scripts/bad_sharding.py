"""Each worker takes a shard of the data, and tfdist its rows of that."""

import keras
import tensorflow as tf
from common import BATCH, arrays, cross_entropy, layers

import tfdist

strategy = tfdist.MultiWorkerMirroredStrategy()
dataset = tf.data.Dataset.from_tensor_slices(arrays()).shard(strategy.num_workers, strategy.worker_index).batch(BATCH)
with strategy.scope():
    model = keras.Sequential(layers())
    model.compile("sgd", cross_entropy())
model.fit(dataset.repeat(), epochs=2, steps_per_epoch=4, verbose=0)
