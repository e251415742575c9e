from __future__ import annotations

import keras
import pytest

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_averaging")


def names(variables):
    return [variable.path.rsplit("/", 1)[-1] for variable in variables]


@pytest.fixture
def built():
    """An optimizer with averages of its weights, for one variable."""
    optimizer = keras.optimizers.Adam(use_ema=True)
    optimizer.build([keras.Variable([1.0, 2.0], name="kernel")])
    return optimizer


def test_averages_of_weights_are_a_list_of_their_own(built):
    canary.has(built, "_model_variables_moving_average")
    found = canary.module().moving_averages_of(built)
    canary.check(names(found) == ["kernel_average"], f"the moving averages of weights are {names(found)}")


def test_state_of_the_rule_is_what_has_no_aggregation(built):
    found = canary.module().rule_state_of(built)
    expected = ["kernel_momentum", "kernel_velocity"]
    canary.check(names(found) == expected, f"Adam's variables without counters and averages are {names(found)}")


def test_inner_optimizers_averages_are_found():
    inner = keras.optimizers.SGD(use_ema=True)
    outer = keras.optimizers.LossScaleOptimizer(inner)
    outer.build([keras.Variable([1.0], name="kernel")])
    found = names(canary.module().moving_averages_of(outer))
    canary.check(found == ["kernel_average"], f"the inner optimizer's moving averages are {found}")
