"""BatchNormalization whose replicas each normalize with their own rows' moments."""

import keras
from common import CLASSES, FEATURES, batches, cross_entropy

import tfdist

strategy = tfdist.MirroredStrategy()
with strategy.scope():
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(CLASSES),
        ]
    )
    model.compile("adam", cross_entropy(), metrics=["accuracy"])
model.fit(batches(), epochs=2, verbose=0)
