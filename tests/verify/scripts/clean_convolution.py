"""Convolutions, with a bias that synchronized BatchNormalization takes out, so its gradient is rounding alone."""

import keras
import numpy as np
from common import CLASSES

import tfdist

strategy = tfdist.MultiWorkerMirroredStrategy()
random = np.random.RandomState(0)
images, labels = random.rand(60, 8, 8, 1).astype("float32"), random.randint(0, CLASSES, 60)
with strategy.scope():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(synchronized=True),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images, labels, batch_size=20, epochs=2, verbose=0)
