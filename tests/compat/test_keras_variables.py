from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_variables")
VARIABLE = "keras.src.backend.common:KerasVariable"


@pytest.fixture
def assigned(monkeypatch) -> list[keras.Variable]:
    """The variables that were assigned through `KerasVariable.assign`."""
    cls, seen = canary.find(VARIABLE), []
    canary.find(f"{VARIABLE}.assign")
    upstream = canary.module()._assign

    def assign(self, value):
        seen.append(self)
        return upstream(self, value)

    monkeypatch.setattr(cls, "assign", assign)
    return seen


def test_the_replaced_method_has_the_same_parameters():
    canary.find(f"{VARIABLE}.assign")
    shim = canary.module()
    canary.same_parameters(shim._assign, shim.assign)


def test_the_backends_variables_inherit_assign():
    cls = canary.find(VARIABLE)
    canary.check(issubclass(keras.Variable, cls), "keras.Variable is not a KerasVariable")
    canary.check(keras.Variable.assign is cls.assign, "keras.Variable has an assign() of its own")


@pytest.mark.parametrize("method", ["assign", "assign_add", "assign_sub"])
def test_all_assignments_go_through_assign(assigned, method):
    variable = keras.Variable(1.0)
    getattr(variable, method)(2.0)
    canary.check(assigned == [variable], f"{method}() doesn't go through KerasVariable.assign")


def test_moving_averages_are_assigned_through_assign(assigned):
    layer = keras.layers.BatchNormalization()
    layer(tf.ones([2, 1]), training=True)
    seen = {variable.path for variable in assigned}
    moving = {layer.moving_mean.path, layer.moving_variance.path}
    canary.check(moving <= seen, "BatchNormalization assigns its moving statistics by other ways than assign()")


def test_the_fault_is_still_there(stock_faults):
    canary.still(stock_faults, "moving_averages_drift_apart")


@pytest.mark.parametrize("name", ["__int__", "__float__"])
def test_conversions_to_numbers_are_methods_of_the_class(name):
    canary.find(f"{VARIABLE}.{name}")
    shim = canary.module()
    canary.same_parameters(shim._numbers[name], lambda self: None)
    canary.check(keras.Variable.__int__ is canary.find(VARIABLE).__int__, "keras.Variable has an __int__ of its own")


def test_numbers_of_a_plain_variable_are_upstreams():
    shim = canary.module()
    number = shim._number(shim._numbers["__int__"], int)
    assert number(keras.Variable(3.0)) == 3
    with pytest.raises(TypeError, match="Only scalar"):
        number(keras.Variable([1.0, 2.0]))
