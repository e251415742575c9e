from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_packed_variables")


def perceptron() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])


def gradients_of(model: keras.Model, x: tf.Tensor) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x) ** 2)
    return tape.gradient(loss, model.trainable_variables)


def test_what_upstream_has_for_reads_is_there():
    canary.find("tensorflow.python.eager.record:record_operation")
    canary.find("tensorflow.python.ops.resource_variable_ops:variable_accessed")
    canary.find("tensorflow.python.distribute.ps_values:CachingVariable.get")


def test_gradients_are_those_of_the_variables():
    """Packing copies, so they are the same bits."""
    model, x = perceptron(), tf.random.normal([5, 3], seed=1)

    @tf.function
    def packed():
        with canary.module().Fetch(model.trainable_variables, []).used():
            return gradients_of(model, x)

    expected = tf.function(gradients_of)(model, x)
    for gradient, other in zip(packed(), expected, strict=True):
        canary.check(gradient is not None, "a tape doesn't find a variable whose value was fetched")
        canary.check(bool(tf.reduce_all(gradient == other)), "the gradient of a fetched value is another one")


def test_a_variable_in_a_loop_is_read_as_ever():
    variable = keras.Variable(2.0)

    @tf.function
    def packed():
        with canary.module().Fetch([variable], []).used(), tf.GradientTape() as tape:
            total = tf.while_loop(lambda i, _: i < 3, lambda i, t: (i + 1, t * variable.value), (0, tf.constant(1.0)))[
                1
            ]
        return total, tape.gradient(total, variable)

    total, gradient = packed()
    assert (float(total), float(gradient)) == (8.0, 12.0)


def test_what_was_assigned_is_read():
    variable = keras.Variable(2.0)

    @tf.function
    def packed():
        fetch = canary.module().Fetch([variable], [])
        with fetch.used():
            before = tf.identity(variable.value)
            with fetch.updating():
                variable.assign(5.0)
            return before, tf.identity(variable.value)

    assert [float(one) for one in packed()] == [2.0, 5.0]


def test_gradients_are_pushed_as_they_are():
    variables = [tf.Variable(tf.ones(shape)) for shape in ([2, 3], [], [4])]
    gradients = [tf.random.normal(one.shape, seed=i) for i, one in enumerate(variables)]
    slices = tf.IndexedSlices(tf.ones([1]), tf.constant([2]), tf.constant([4]))
    pairs = [*zip(gradients, variables, strict=True), (slices, variables[2])]
    pushed = canary.module().pushed(pairs)
    assert [one for _, one in pushed] == [one for _, one in pairs]
    assert pushed[3][0] is slices
    for (gradient, _), expected in zip(pushed[:3], gradients, strict=True):
        assert bool(tf.reduce_all(gradient == expected))
