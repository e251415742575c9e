from __future__ import annotations

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_worker_tables")
TABLE = "tensorflow.python.distribute.ps_values:DistributedTable"


def test_a_tables_handle_is_a_property_that_captures_at_call_time():
    canary.find(f"{TABLE}.resource_handle")
    canary.check(isinstance(canary.module()._resource_handle, property), "DistributedTable.resource_handle is a method")
    canary.find("tensorflow.python.framework.func_graph:FuncGraph.capture_call_time_value")


def test_the_graph_of_a_function_is_known_while_it_is_traced():
    module = canary.module()

    @tf.function
    def function() -> tf.Tensor:
        with module.function_of_worker():
            return tf.constant(module._graphs[-1] is tf.constant(0).graph)

    canary.check(bool(function()), "ops.get_default_graph() is not the function's graph")
    canary.check(not module._graphs, "the graph is kept")
