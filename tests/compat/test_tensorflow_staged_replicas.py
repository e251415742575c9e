from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary
from tfdist._compat.tensorflow_staged_devices import full_name

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_staged_replicas")
EXTENDED = "tensorflow.python.distribute.mirrored_strategy:MirroredExtended"
METHODS = ["_call_for_each_replica", "_create_variable", "_initialize_strategy", "_get_cross_device_ops"]


@pytest.mark.parametrize("method", METHODS)
def test_the_overridden_methods_have_the_same_parameters(method):
    canary.find(f"{EXTENDED}.{method}")
    shims = canary.module().StagedReplicasExtended
    canary.same_parameters(getattr(canary.find(EXTENDED), method), getattr(shims, method))


def strategy_with(place=lambda inputs, is_backward: ""):
    """Two replicas on one device, which upstream refuses where it chooses the devices."""
    host = full_name("CPU:0")
    strategy = tf.distribute.Strategy.__new__(tf.distribute.Strategy)
    strategy.__init__(canary.module().StagedReplicasExtended(strategy, host, [host, host], place))
    return strategy


def test_replicas_have_copies_where_they_are_told_and_sums_that_are_equal():
    strategy, placed, indices = strategy_with(lambda inputs, _: placed.append(inputs) or ""), [], []
    with strategy.scope(), strategy.extended.making_on([full_name("CPU:0")] * 2):
        variable = tf.Variable([1.0])
    canary.check(len(variable.values) == 2, f"a variable of two replicas is {variable}")

    @tf.function
    def step():
        def in_replica():
            indices.append(canary.module().replica_index())
            context = tf.distribute.get_replica_context()
            total = context.all_reduce("sum", variable * (indices[-1] + 1.0))
            variable.assign(total, read_value=False)
            return total

        return strategy.experimental_local_results(strategy.run(in_replica))

    np.testing.assert_array_equal(np.asarray(step()), [[3.0], [3.0]])
    canary.check(indices == [0, 1], f"replicas' contexts have the indices {indices}")
    canary.check(placed != [], "operations of replicas are placed without the device function")
    assert canary.module().replica_index() == 0


def test_replicas_have_their_input_on_the_host():
    strategy = strategy_with()
    data = strategy.experimental_distribute_dataset(tf.data.Dataset.range(4).batch(2))
    parts = [strategy.experimental_local_results(batch) for batch in data]
    assert [[part.numpy().tolist() for part in batch] for batch in parts] == [[[0], [1]], [[2], [3]]]


def test_a_variable_beside_another_one_is_made_where_that_is():
    strategy = strategy_with()
    with strategy.scope():
        first = tf.Variable(1.0)
        with strategy.extended.colocate_vars_with(first):
            second = tf.Variable(2.0)
    canary.has(first, "_devices")
    assert [copy.device for copy in second.values] == [copy.device for copy in first.values]
