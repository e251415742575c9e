"""A loss that adds up over the rows of the batch by itself."""

import keras
from common import batches, layers

import tfdist


def squared_error(y_true, y_pred):
    return keras.ops.sum(keras.ops.square(keras.ops.one_hot(y_true, 3) - y_pred))


strategy = tfdist.MirroredStrategy()
with strategy.scope():
    model = keras.Sequential(layers())
    model.compile(keras.optimizers.SGD(1e-3), squared_error)
model.fit(batches(), epochs=2, verbose=0)
