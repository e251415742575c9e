from __future__ import annotations

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_repeated_keys")


class Launcher:
    """What is read of one."""

    _group_key, _device = 1, "/device:CPU:0"


def keys_of(*values: tf.Tensor) -> list[int | None]:
    found = []
    for value in values:
        with canary.module().repeated_keys(value):
            found.append(canary.module().repeated_key(Launcher()))
    return found


def test_functions_know_the_one_around_them_and_loops_are_told_apart():
    for name in ("WhileBodyFuncGraph", "WhileCondFuncGraph"):
        canary.find(f"tensorflow.python.ops.control_flow_v2_func_graphs:{name}")
    canary.find("tensorflow.python.framework.func_graph:FuncGraph")
    found = {}

    @tf.function
    def outer():
        found["outer"] = keys_of(tf.ones([3]))
        inner()
        tf.cond(tf.random.uniform([]) > 0, branch, lambda: 0)
        tf.while_loop(lambda i: i < 2, body, [0])

    @tf.function
    def inner():
        found["inner"] = keys_of(tf.ones([3]))

    def branch():
        found["branch"] = keys_of(tf.ones([3]))
        return 0

    def body(i):
        found["loop"] = keys_of(tf.ones([3]))
        return i + 1

    outer.get_concrete_function()
    keys = [found[name][0] for name in ("outer", "inner", "branch")]
    canary.check(keys == [keys[0], keys[0] + 1, keys[0] + 2], f"nested functions have keys {keys}")
    canary.check(found["loop"] == [None], "a while loop's body is no WhileBodyFuncGraph")


def test_keys_say_dtype_size_and_number_and_nothing_else():
    @tf.function
    def run():
        values = [tf.ones([size], dtype) for dtype in ("float32", "float64") for size in (1, 2, 1 << 20)]
        traced.append(keys_of(*values, *values))

    traced = []
    run.get_concrete_function()
    tf.function(run.python_function).get_concrete_function()
    first, second = traced
    assert first == second, "another trace has the same"
    assert len(set(first)) == 12
    assert all(1 << 30 <= key < 1 << 31 for key in first)


@pytest.mark.parametrize("value", [tf.ones([2], tf.int32), tf.ones([0]), tf.zeros([(1 << 20) + 1])])
def test_what_a_key_cannot_say_has_fresh_ones(value):
    found = []
    tf.function(lambda: found.extend(keys_of(tf.identity(value)))).get_concrete_function()
    assert found == [None]


def test_outside_of_functions_and_of_the_scope_keys_are_fresh():
    assert keys_of(tf.ones([3])) == [None]
    found = []
    tf.function(lambda: found.append(canary.module().repeated_key(Launcher()))).get_concrete_function()
    assert found == [None]
