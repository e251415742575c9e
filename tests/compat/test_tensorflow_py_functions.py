from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_py_functions")
REGISTRY = "tensorflow.python.ops.script_ops:_py_funcs"


def test_functions_are_kept_by_token():
    registry = canary.find(REGISTRY)
    canary.has(registry, "_funcs")
    canary.module().register("canary", twice := lambda value: [value * 2])
    canary.check(registry.get("tfdist:canary") is twice, "the registry doesn't find what was put into its _funcs")


@pytest.mark.parametrize("stateful", [False, True])
def test_operations_find_a_function_by_its_token(stateful: bool):
    shim = canary.module()
    shim.register("canary", lambda value: [value * 2])
    dataset = tf.data.Dataset.range(3).map(lambda i: shim.call("canary", [i], [tf.int64], stateful=stateful)[0])
    found = [int(one) for one in dataset]
    canary.check(found == [0, 2, 4], f"PyFunc with a token of the shim's own gives {found}")


def test_another_process_runs_the_graph(tmp_path):
    """What upstream's numbers can't do."""
    shim = canary.module()
    shim.register("canary", lambda value: [value * 2])
    module = tf.Module()
    module.twice = tf.function(lambda value: shim.call("canary", [value], [tf.int64], stateful=False)[0])
    module.twice.get_concrete_function(tf.TensorSpec([], tf.int64))
    tf.saved_model.save(module, str(tmp_path))
    program = (
        "import sys, tensorflow as tf; from tfdist._compat import tensorflow_py_functions as shim;"
        "shim.register('canary', lambda value: [value * 2]);"
        "print(int(tf.saved_model.load(sys.argv[1]).twice(tf.constant(21, tf.int64))))"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=120)
    canary.check(done.stdout.strip() == "42", f"a graph doesn't run in another process:\n{done.stderr[-2000:]}")


def test_upstreams_own_functions_have_numbers():
    """When they have names, or are found in other processes, the shim can go."""
    graph = tf.Graph()
    with graph.as_default():
        tf.numpy_function(lambda value: value, [np.int64(1)], tf.int64)
    tokens = [op.get_attr("token").decode() for op in graph.get_operations() if op.type.startswith("PyFunc")]
    canary.check(tokens and tokens[0].startswith("pyfunc_"), f"tf.numpy_function's tokens are {tokens}")
