from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_layer_calls")


def test_the_replaced_method_takes_whatever_a_layer_is_called_with():
    canary.find("keras:layers.Layer.__call__")
    shim = canary.module()
    canary.takes(shim._call, None, 1, training=True)
    canary.takes(shim.call, None, 1, training=True)


@pytest.mark.parametrize("kind", [keras.Sequential, type(keras.Model(one := keras.Input((1,)), one))])
def test_models_are_called_through_the_class_that_is_replaced(kind):
    """No class of Keras' between `keras.Model` and a user's has a `__call__` of its own."""
    canary.check(keras.Model in kind.__mro__, f"{kind.__name__} is no keras.Model")
    before = kind.__mro__[: kind.__mro__.index(keras.Model)]
    own = [one.__name__ for one in before if "__call__" in vars(one)]
    canary.check(not own, f"{own} have a __call__ of their own")


def test_a_model_without_a_strategy_is_upstreams():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    x = np.ones((3, 2), "float32")
    np.testing.assert_array_equal(canary.module().call(model, x), canary.module()._call(model, x))
