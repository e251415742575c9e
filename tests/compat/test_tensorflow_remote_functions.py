from __future__ import annotations

import gc

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_remote_functions")
CONTEXT = "tensorflow.python.eager.context"


@pytest.fixture
def context():
    current = canary.find(f"{CONTEXT}:context")()
    current.ensure_initialized()
    yield current
    canary.module().remove_unused()
    vars(current).pop("remove_function", None)


def test_what_it_uses_is_there(context):
    canary.has(context, "_handle", "has_function")
    canary.takes(canary.find(f"{CONTEXT}:Context").remove_function, context, "name")


def test_a_function_that_nobody_uses_is_removed_when_it_is_asked_for(context):
    shim = canary.module()
    shim.keep_unused()
    function = tf.function(lambda x: x + 1)
    name = function.get_concrete_function(tf.TensorSpec([], tf.int32)).name.decode()
    assert context.has_function(name)
    del function
    gc.collect()
    canary.check(context.has_function(name), "functions are removed without Context.remove_function()")
    shim.remove_unused()
    canary.check(not context.has_function(name), "Context.remove_function() doesn't remove them")
