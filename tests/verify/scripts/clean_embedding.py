"""An embedding (sparse gradients), masked sequences, several steps an execution, and an argument."""

import argparse

import keras
import numpy as np
from common import CLASSES

import tfdist

parser = argparse.ArgumentParser()
parser.add_argument("--words", type=int, required=True)
words = parser.parse_args().words

strategy = tfdist.MirroredStrategy()
random = np.random.RandomState(0)
texts, labels = random.randint(0, words, (64, 5)), random.randint(0, CLASSES, 64)
with strategy.scope():
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(words, 4, mask_zero=True),
            keras.layers.GRU(6),
            keras.layers.Dense(CLASSES),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("rmsprop", loss, metrics=["accuracy"], steps_per_execution=2)
model.fit(texts, labels, batch_size=16, epochs=2, verbose=0)
