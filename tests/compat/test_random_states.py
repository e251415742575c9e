from __future__ import annotations

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("random_states")


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(3)


DRAWS = {
    "python": random.random,
    "python_gauss": lambda: random.gauss(0, 1),
    "numpy": np.random.rand,
    "numpy_gauss": np.random.randn,
    "keras": lambda: float(keras.random.uniform(())),
    # Of an eager operation; its kernel lives as long as the process and would go on counting itself.
    "tensorflow": lambda: context.internal_operation_seed(),
    "tensorflow_generator": lambda: float(tf.random.get_global_generator().uniform(())),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_next_numbers_are_those_that_would_have_come(name):
    draw, shim = DRAWS[name], canary.module()
    draw()
    states = {key: np.array(value) for key, value in shim.get_random_states().items()}
    expected = [draw() for _ in range(3)]
    assert [draw() for _ in range(3)] != expected
    shim.set_random_states(states)
    assert [draw() for _ in range(3)] == expected


def test_seeds_of_layers_are_found():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.GaussianNoise(0.1)])
    model = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(1), keras.layers.Dropout(0.5)])
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(np.ones((2, 4)), np.ones((2, 1)), verbose=0)
    seeds = canary.module().layer_seeds(model)
    canary.check(len(seeds) == 3, "model.variables doesn't hold the states of the layers' seed generators")
    assert all(tuple(one.shape) == (2,) for one in seeds)


def test_upstream_keeps_the_three_hidden_ones():
    canary.find("keras.src.random.seed_generator:GLOBAL_SEED_GENERATOR")
    canary.find("keras.src.backend.common.global_state:get_global_attribute")
    canary.check(hasattr(tf.random.get_global_generator(), "state"), "tf.random.Generator.state is gone")
    stateful = canary.find("tensorflow.python.ops.stateful_random_ops:global_generator")
    canary.check(stateful is not None, "the global generator isn't kept in its module")
    rng = canary.find("tensorflow.python.eager.context:context")()._rng
    canary.check(isinstance(rng, random.Random), "the eager context's _rng isn't Python's")
