from __future__ import annotations

import contextlib
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_variable_devices")


def test_a_variable_gets_another_value_holder():
    shim = canary.module()
    variable = keras.Variable(np.arange(3.0, dtype="float32"), name="moved")
    canary.has(variable, "_value", "_initialize")
    before, devices = shim.stored(variable), []
    strategy = SimpleNamespace(scope=contextlib.nullcontext)
    strategy.extended = SimpleNamespace(making_on=lambda on: devices.append(on) or contextlib.nullcontext())
    shim.move(variable, strategy, shim.devices_of(variable))
    assert shim.stored(variable) is before
    shim.move(variable, strategy, ["elsewhere"])
    after = shim.stored(variable)
    canary.check(isinstance(after, tf.Variable) and after is not before, "_initialize makes no tf.Variable")
    canary.check(devices == [["elsewhere"]], "the strategy wasn't asked for the device")
    np.testing.assert_array_equal(variable.numpy(), [0, 1, 2])
    canary.check(after.trainable and after.name.startswith("moved"), f"it became {after}")


def test_the_holder_is_found_in_an_autocast_scope():
    shim, variable = canary.module(), keras.Variable(1.0)
    autocast = canary.find("keras.src.backend.common.variables:AutocastScope")
    with autocast("float16"):
        canary.check(shim.stored(variable) is not variable.value, "value is no longer cast in the scope")
        canary.check(isinstance(shim.stored(variable), tf.Variable), "_value is no tf.Variable")


def test_copies_of_replicas_have_devices_of_their_own():
    shim, strategy = canary.module(), tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        variable = keras.Variable(1.0)
    canary.has(shim.stored(variable), "values")
    assert shim.devices_of(variable) == [shim.device_of(variable)]
    plain = keras.Variable(1.0)
    canary.check(not hasattr(shim.stored(plain), "values"), "a tf.Variable has values now")
    assert shim.devices_of(plain) == [shim.device_of(plain)]
