from __future__ import annotations

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_exchange")


def test_strategies_have_a_launcher_for_each_replica():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    canary.has(strategy.extended, "_cross_device_ops")
    cls = canary.find("tensorflow.python.distribute.cross_device_ops:CollectiveAllReduce")
    communicator = strategy.extended._cross_device_ops
    canary.check(isinstance(communicator, cls), "MirroredStrategy has no CollectiveAllReduce")
    (launcher,) = communicator._launchers
    canary.has(launcher, "_all_gather", "_options", "_group_size", "_group_key", "_device", "_get_ordering_token")
    canary.takes(launcher._all_gather, "value", "options")
    indices = []
    strategy.run(lambda: indices.append(tf.distribute.get_replica_context()._replica_id))
    canary.check(indices == [0], "ReplicaContext._replica_id is no index of the local replica")


def test_all_to_all_takes_bfloat16_and_what_the_shim_passes():
    function = canary.find("tensorflow.python.ops.collective_ops:all_to_all_v2")
    more = {"communication_hint": "RING", "timeout": 0, "ordering_token": None}
    canary.takes(function, "value", 2, 1, 100, **more)

    @tf.function
    def run():
        return function(tf.ones([1, 3], tf.bfloat16), 1, 1, 100, **more)

    canary.check(run.get_concrete_function().output_dtypes == tf.bfloat16, "all_to_all_v2 takes no bfloat16")
