from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder
from tfdist._compat import hooks

pytestmark = pytest.mark.unit
canary = Canary("keras_operations")
MODULE = "keras.src.backend.tensorflow:numpy"


@pytest.fixture
def splitting(monkeypatch):
    canary.find(MODULE)
    strategy = hooks.KerasHooks()
    strategy.splits_operations = True
    monkeypatch.setattr(canary.module().hooks, "active_strategy", lambda: strategy)


@pytest.mark.parametrize("name", ["flip", "repeat"])
def test_the_replaced_functions_have_the_same_parameters(name):
    canary.find(f"{MODULE}.{name}")
    shim = canary.module()
    canary.same_parameters(getattr(shim, f"_{name}"), getattr(shim, name))


@pytest.mark.parametrize("name", ["flip", "repeat"])
def test_keras_calls_the_replaced_functions(monkeypatch, name):
    function = Recorder(tf.ones([2]))
    monkeypatch.setattr(canary.find(MODULE), name, function)
    getattr(keras.ops, name)(tf.ones([2]), *([2] if name == "repeat" else []))
    canary.check(function.was_called, f"keras.ops.{name} is another function than the backend's")


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
def test_flip_is_upstreams(splitting, axis):
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(canary.module().flip(x, axis), np.flip(x, axis))


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_repeat_is_upstreams(splitting, axis):
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(canary.module().repeat(x, 3, axis), np.repeat(x, 3, axis))
