"""Layers with state of their own, and whole architectures."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tests.helpers.cases import case
from tests.helpers.setups import Setup, batches, compiled, features, labels, report


def normalized(setup: Setup) -> keras.Model:
    with setup.scope():
        layers = [keras.Input((6,)), keras.layers.Dense(8, activation="tanh")]
        # On one device "synchronized" says nothing; there the plain layer is the reference.
        layers.append(keras.layers.BatchNormalization(synchronized=setup.replicas > 1, momentum=0.8))
        return compiled(keras.Sequential([*layers, keras.layers.Dense(3)]))


@case()
def batch_normalization_synchronized(setup: Setup) -> dict[str, Any]:
    model = normalized(setup)
    history = model.fit(batches(53, 10), epochs=2, verbose=0)
    return report(model, history, evaluate=model.evaluate(batches(53, 10), verbose=0))


@case()
def batch_normalization_with_an_empty_replica(setup: Setup) -> dict[str, Any]:
    model = normalized(setup)
    return report(model, model.fit(batches(49, 16), epochs=2, verbose=0))


@case()
def convolutional(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        layers = [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.LayerNormalization(),
            keras.layers.Dense(3),
        ]
        model = compiled(keras.Sequential(layers), "adam")
    x = np.random.RandomState(4).rand(33, 8, 8, 1).astype("float32")
    history = model.fit(x, labels(33), batch_size=16, epochs=2, shuffle=False, verbose=0)
    return report(model, history, predict=model.predict(x, batch_size=16, verbose=0))


@case()
def attention(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        inputs = keras.Input((3, 2))
        hidden = keras.layers.MultiHeadAttention(2, 2)(inputs, inputs)
        hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.LayerNormalization()(inputs + hidden))
        model = compiled(keras.Model(inputs, keras.layers.Dense(3)(hidden)), keras.optimizers.SGD(0.1))
    x = features(49).reshape(49, 3, 2)
    return report(model, model.fit(x, labels(49), batch_size=16, epochs=2, shuffle=False, verbose=0))


@case()
def frozen_and_unfrozen(setup: Setup) -> dict[str, Any]:
    model = setup.classifier()
    model.layers[0].trainable = False
    with setup.scope():
        compiled(model, "adam")
    model.fit(batches(53, 10), epochs=1, verbose=0)
    model.layers[0].trainable = True
    compiled_again = compiled(model, "adam")
    return report(compiled_again, compiled_again.fit(batches(53, 10), epochs=1, verbose=0))


@case()
def batch_normalization_far_from_zero(setup: Setup) -> dict[str, Any]:
    """Activations around 100 with a spread of 1: a sum of squares would lose the variance's digits."""
    with setup.scope():
        normalization = keras.layers.BatchNormalization(synchronized=setup.replicas > 1)
        model = compiled(keras.Sequential([keras.Input((6,)), normalization, keras.layers.Dense(3)]))
    history = model.fit(features(49) + 100, labels(49), batch_size=16, epochs=2, shuffle=False, verbose=0)
    return report(model, history)


@case()
def batch_normalization_masked(setup: Setup) -> dict[str, Any]:
    """Padded steps count neither here nor there."""
    with setup.scope():
        inputs = keras.Input((3, 2))
        hidden = keras.layers.Masking()(inputs)
        hidden = keras.layers.BatchNormalization(synchronized=setup.replicas > 1, momentum=0.8)(hidden)
        model = compiled(keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(hidden))))
    x = features(49).reshape(49, 3, 2)
    x[::3, 2] = 0.0
    model.fit(x, labels(49), batch_size=16, epochs=1, shuffle=False, verbose=0)
    return report(model, model.fit(x, labels(49), batch_size=16, epochs=1, shuffle=False, verbose=0))
