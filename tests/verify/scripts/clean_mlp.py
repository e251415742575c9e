"""Plain Keras without any strategy, fitted to arrays in shuffled batches, the last of a single row."""

import keras
import numpy as np

random = np.random.RandomState(0)
features = random.randn(49, 6).astype("float32")
labels = random.randint(0, 3, 49)

model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(3)])
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
model.fit(features, labels, batch_size=16, epochs=2, verbose=0)
