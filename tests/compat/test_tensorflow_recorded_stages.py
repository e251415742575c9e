from __future__ import annotations

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_recorded_stages")


@pytest.mark.parametrize("eagerly", [True, False])
def test_the_last_recording_decides_the_gradient(eagerly):
    shim, variable = canary.module(), tf.Variable(3.0)

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            assert shim.is_recording()
            assert shim.is_watched(x)
            y = tf.identity(x * variable)
            shim.record_stage([y], [x], [variable], lambda upstream: [upstream * 100.0, upstream * 1000.0])
            loss = y * 2.0
        return tape.gradient(loss, [x, variable])

    found = [float(one) for one in (step if eagerly else tf.function(step))(tf.constant(1.0))]
    canary.check(found == [200.0, 2000.0], f"the gradients are {found}, and those of the recorded function 200, 2000")


def test_nothing_records_without_a_tape():
    assert not canary.module().is_recording()
    with tf.GradientTape():
        assert not canary.module().is_watched(tf.constant(1.0))


def test_upstreams_custom_gradient_still_gathers_all_variables():
    variables = [tf.Variable(1.0), tf.Variable(2.0)]

    @tf.custom_gradient
    def product(x):
        return x * variables[0] * variables[1], lambda up, variables=None: (up, [up for _ in variables])

    graph = tf.function(lambda x: product(x)).get_concrete_function(tf.constant(1.0)).graph
    sizes = [len(op.inputs) for op in graph.get_operations() if op.type == "IdentityN"]
    canary.check(sizes == [4], "tf.custom_gradient no longer reads all variables into one IdentityN: use it instead")
