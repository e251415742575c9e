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
