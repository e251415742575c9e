from __future__ import annotations

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_staged_devices")
EXTENDED = "tensorflow.python.distribute.one_device_strategy:OneDeviceExtended"
METHODS = ["_call_for_each_replica", "_update", "_update_non_slot", "_create_variable"]


@pytest.mark.parametrize("method", METHODS)
def test_the_overridden_methods_have_the_same_parameters(method):
    canary.find(f"{EXTENDED}.{method}")
    canary.same_parameters(getattr(canary.find(EXTENDED), method), getattr(canary.module().StagedExtended, method))


def strategy_with(place):
    shim = canary.module()
    strategy = tf.distribute.Strategy.__new__(tf.distribute.Strategy)
    strategy.__init__(shim.StagedExtended(strategy, shim.full_name("CPU:0"), place))
    return strategy


def test_a_device_function_sees_each_operation_with_its_inputs_devices():
    seen = []

    def place(inputs, is_backward):
        seen.append(([device[-5:] for _, device in inputs], is_backward))
        return ""

    strategy = strategy_with(place)
    variable = tf.Variable([2.0])

    @tf.function
    def step(x):
        def in_replica():
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.cond(x[0] > 0, lambda: x * variable, lambda: x)
            return tape.gradient(y, x)

        return strategy.extended.call_for_each_replica(in_replica)

    assert step(tf.constant([1.0])).numpy() == [2.0]
    reads = [devices for devices, _ in seen if "CPU:0" in devices]
    canary.check(reads, "a captured variable's device isn't found, or conditionals don't inherit device functions")
    canary.check(any(backward for _, backward in seen), "a tape's operations are no longer named gradient_tape/")
    canary.check(not all(backward for _, backward in seen), "all operations are named gradient_tape/")


def test_variables_are_made_and_updated_where_they_should_be():
    shim = canary.module()
    strategy = strategy_with(lambda inputs, is_backward: "")
    with strategy.scope(), strategy.extended.making_on([shim.full_name("CPU:0")]):
        variable = tf.Variable(1.0)
    canary.check(variable.device == shim.full_name("CPU:0"), f"it is on {variable.device}")
    strategy.extended.update(variable, lambda v, by: v.assign_add(by), args=(2.0,))
    assert variable.numpy() == 3.0


def test_a_function_that_makes_variables_eagerly_is_traced_once():
    strategy, made = strategy_with(lambda inputs, is_backward: ""), []

    @tf.function
    def step(x):
        made.append(None)
        if len(made) == 1:
            with tf.init_scope(), strategy.scope():
                made[0] = tf.Variable(2.0)
        return x * made[0]

    assert step(tf.constant(3.0)).numpy() == 6.0
    canary.check(len(made) == 1, "it is traced twice all the same")
