from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_sparse_updates")
ADAGRAD = "keras:optimizers.Adagrad"
VALUES = np.arange(15, dtype="float32").reshape(5, 3)


def gradient() -> tf.IndexedSlices:
    """With a row twice, as a batch may ask for it."""
    return tf.IndexedSlices(
        tf.constant([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]), tf.constant([1, 3, 1]), tf.constant([5, 3])
    )


def updated(update_step) -> tuple[list[np.ndarray], set[tuple[int, ...]]]:
    """Variable and slots after two updates, and the shapes that square roots are taken of."""
    optimizer, variable = canary.find(ADAGRAD)(0.1), keras.Variable(VALUES)
    optimizer.build([variable])

    def run():
        for _ in range(2):
            update_step(optimizer, gradient(), variable.value, tf.constant(0.1))

    concrete = tf.function(run, autograph=False).get_concrete_function()
    concrete()
    shapes = {tuple(op.outputs[0].shape) for op in concrete.graph.get_operations() if op.type == "Sqrt"}
    return [one.numpy() for one in (variable, *optimizer.variables)], shapes


def test_the_replaced_method_has_the_same_parameters():
    canary.find(f"{ADAGRAD}.update_step")
    canary.same_parameters(canary.module()._update_step, canary.module().update_step)
    canary.has(canary.find(ADAGRAD)(), "_get_variable_index", "epsilon")


def test_upstream_looks_at_all_rows():
    _, shapes = updated(canary.module()._update_step)
    canary.check(shapes == {(5, 3)}, "Adagrad reads rows; the shim can go")


def test_rows_change_as_upstreams_do(monkeypatch):
    expected, _ = updated(canary.module()._update_step)
    monkeypatch.setattr(canary.module().hooks, "current_step", lambda: SimpleNamespace(is_concurrent=True))
    found, shapes = updated(canary.module().update_step)
    assert shapes == {(3, 3)}
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_elsewhere_it_is_upstreams_own():
    assert updated(canary.module().update_step)[1] == {(5, 3)}
