from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_adafactor")
ADAFACTOR = "keras:optimizers.Adafactor"
VALUES = np.arange(15, dtype="float32").reshape(5, 3)


def updated(update_step) -> tuple[list[np.ndarray], set[str]]:
    """Variable and slots after two updates by rows, one of them there twice, and the kinds of operations."""
    optimizer, variable = canary.find(ADAFACTOR)(0.1), keras.Variable(VALUES)
    optimizer.build([variable])
    values = tf.constant([[1.0, 2, 3], [4, 5, 6], [-7, 8, 9]])
    gradient = tf.IndexedSlices(values, tf.constant([1, 3, 1]), tf.constant([5, 3]))

    def run():
        for _ in range(2):
            update_step(optimizer, gradient, variable.value, tf.constant(0.1))

    concrete = tf.function(run, autograph=False).get_concrete_function()
    concrete()
    kinds = {operation.type for operation in concrete.graph.get_operations()}
    return [one.numpy() for one in (variable, *optimizer.variables)], kinds


def test_upstream_is_made_of_what_is_replaced():
    update_step = canary.find(f"{ADAFACTOR}.update_step")
    canary.same_parameters(canary.module()._update_step, update_step)
    canary.same_parameters(canary.module()._rms, canary.find(f"{ADAFACTOR}._rms"))
    names = set(canary.module()._update_step.__code__.co_names)
    canary.check({"ops", "divide", "square", "_rms"} <= names, f"Adafactor's update names {sorted(names)}")


def test_upstream_looks_for_zeros():
    _, kinds = updated(canary.module()._update_step)
    canary.check(kinds & {"If", "StatelessIf"}, "rows are divided without a branch; the shim can go")


def test_tables_change_as_upstreams_do(monkeypatch):
    expected, _ = updated(canary.module()._update_step)
    canary.module().install()
    monkeypatch.setattr(canary.module(), "MeshVariable", tf.Variable)
    found, kinds = updated(canary.module().update_step)
    assert not kinds & {"If", "StatelessIf"}
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_elsewhere_it_is_upstreams_own():
    expected, kinds = updated(canary.module()._update_step)
    found, also = updated(canary.module().update_step)
    assert also == kinds
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
