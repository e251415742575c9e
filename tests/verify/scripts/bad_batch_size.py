"""A batch size that is multiplied by the number of replicas."""

import keras
from common import BATCH, batches, cross_entropy, layers

import tfdist

strategy = tfdist.MirroredStrategy()
dataset = batches(batch_size=BATCH * strategy.num_replicas_in_sync)
with strategy.scope():
    model = keras.Sequential(layers())
    model.compile("sgd", cross_entropy())
model.fit(dataset, epochs=2, verbose=0)
