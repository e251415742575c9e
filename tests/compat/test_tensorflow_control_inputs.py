from __future__ import annotations

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_control_inputs")


def test_an_operation_waits_for_one_that_was_made_later():
    @tf.function
    def two():
        first = tf.no_op()
        canary.has(first, "_add_control_inputs")
        second = tf.no_op()
        canary.module().let_wait(first, [second])
        return first.control_inputs == [second]

    assert two().numpy()


def test_an_operation_with_effects_waits_for_no_other_one():
    made = {}

    @tf.function
    def three():
        canary.has(tf.compat.v1.get_default_graph(), "experimental_acd_manager")
        for name in ("first", "second", "free"):
            made[name] = tf.timestamp().op
        canary.module().let_run(made["free"])

    three.get_concrete_function()
    canary.check(made["first"] in made["second"].control_inputs, "looks at the clock no longer wait for each other")
    assert made["free"].control_inputs == []
