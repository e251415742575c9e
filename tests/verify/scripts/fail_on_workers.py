"""Raises where there are several replicas."""

import keras
from common import batches, cross_entropy, layers

import tfdist

strategy = tfdist.MultiWorkerMirroredStrategy()
if strategy.num_replicas_in_sync > 1:
    raise ValueError("planted failure")

with strategy.scope():
    model = keras.Sequential(layers())
    model.compile("sgd", cross_entropy())
model.fit(batches(), verbose=0)
