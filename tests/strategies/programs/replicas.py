"""What replicas must not share, and what they must: random masks and statistics. Run as a program on each task."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.helpers.setups import Setup, compiled, features, labels


def masks(setup: Setup) -> np.ndarray:
    """Two draws of dropout masks of all replicas, shape [replicas, draws, units]."""
    with setup.scope():
        layer = keras.layers.Dropout(0.5, seed=5)

    @tf.function
    def draw() -> Any:
        per_replica = setup.strategy.run(lambda: layer(tf.ones((1, 64)), training=True))
        return setup.strategy.gather(per_replica, axis=0)

    return np.stack([draw().numpy() > 0 for _ in range(2)], axis=1)


def check_masks(setup: Setup) -> None:
    """Every replica and every draw has another mask; the same seed gives them again."""
    drawn = masks(setup)
    assert drawn.shape == (setup.replicas, 2, 64)
    assert len({mask.tobytes() for mask in drawn.reshape(-1, 64)}) == 2 * setup.replicas
    assert 0.3 < drawn.mean() < 0.7
    np.testing.assert_array_equal(masks(setup), drawn)


def check_random_layers_in_fit(setup: Setup) -> None:
    """Dropout, noise and augmentation in training repeat with the seed; weights are equal on all workers."""

    def train() -> np.ndarray:
        with setup.scope():
            layers = [keras.Input((6,)), keras.layers.GaussianNoise(0.1), keras.layers.Dense(8)]
            model = compiled(keras.Sequential([*layers, keras.layers.Dropout(0.4), keras.layers.Dense(3)]))
        model.fit(features(53), labels(53), batch_size=10, epochs=2, verbose=0)
        return model.get_weights()[0]

    first = train()
    np.testing.assert_array_equal(train(), first)
    assert_equal_everywhere(setup, first)


def check_statistics(setup: Setup) -> None:
    """Unsynchronized BatchNormalization: its statistics are the row-weighted means of the replicas'."""
    with setup.scope():
        layer = keras.layers.BatchNormalization(momentum=0.5)
        model = compiled(keras.Sequential([keras.Input((6,)), layer, keras.layers.Dense(3)]))
    model.fit(features(49), labels(49), batch_size=16, epochs=1, shuffle=False, verbose=0)
    expected = np.zeros(6)
    for start in range(0, 49, 16):  # the last batch is one row, so some replicas have none
        expected = 0.5 * expected + 0.5 * features(49)[start : start + 16].mean(axis=0)
    np.testing.assert_allclose(layer.moving_mean.numpy(), expected, atol=1e-6)
    assert np.isfinite(layer.moving_variance.numpy()).all()
    assert_equal_everywhere(setup, layer.moving_mean.numpy())
    assert_equal_everywhere(setup, layer.moving_variance.numpy())
    for copy in setup.strategy.experimental_local_results(layer.moving_variance.value):
        np.testing.assert_array_equal(copy.numpy(), layer.moving_variance.numpy())


def check_numbers(setup: Setup) -> None:
    """`int` and `float` of variables, as on one device; of one with a dimension they are refused."""
    model = setup.classifier(lambda: keras.optimizers.SGD(0.5))
    model.fit(features(40), labels(40), batch_size=10, verbose=0)
    assert (int(model.optimizer.iterations), float(model.optimizer.learning_rate)) == (4, 0.5)
    try:
        int(model.weights[0])
    except TypeError as error:
        assert "Only scalar" in str(error)
    else:
        raise AssertionError("a matrix became a number")


def assert_equal_everywhere(setup: Setup, value: np.ndarray) -> None:
    """The same bits on every worker."""
    gathered = setup.strategy.gather(tf.constant(value)[tf.newaxis], axis=0).numpy()
    np.testing.assert_array_equal(gathered, np.broadcast_to(value, gathered.shape))


if __name__ == "__main__":
    here = Setup.named(sys.argv[1])
    check_masks(here)
    check_random_layers_in_fit(here)
    check_statistics(here)
    check_numbers(here)
