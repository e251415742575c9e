"""A loss that compares each row with the others of its batch."""

import keras
from common import batches, layers
from keras import ops

import tfdist


def in_batch_negatives(y_true, y_pred):
    similarity = ops.matmul(y_pred, ops.transpose(y_pred))
    return -ops.mean(ops.diagonal(ops.log_softmax(similarity)))


strategy = tfdist.MirroredStrategy()
with strategy.scope():
    model = keras.Sequential(layers())
    model.compile("sgd", in_batch_negatives)
model.fit(batches(), epochs=2, verbose=0)
