"""A script that accumulates gradients by itself: three batches of ten rows to an optimizer step, and leftovers."""

import keras
from common import batches, cross_entropy, layers

import tfdist

strategy = tfdist.MirroredStrategy(gradient_accumulation_steps=3)
with strategy.scope():
    model = keras.Sequential(layers())
    model.compile(keras.optimizers.Adam(0.01, global_clipnorm=0.5), cross_entropy(), metrics=["accuracy"])
model.fit(batches(67, batch_size=10), epochs=3, validation_data=batches(30), verbose=0)
