from __future__ import annotations

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_local_devices")
EXTENDED = "tensorflow.python.distribute.collective_all_reduce_strategy:CollectiveAllReduceExtended"


def test_the_strategy_asks_itself_for_its_devices():
    extended = canary.find(EXTENDED)
    canary.takes(extended._initialize_local_devices, extended, cluster_resolver=None, worker_device="")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(tf.train.ClusterSpec({}))
    with canary.module().local_devices(["CPU:0"]):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    found = [tf.DeviceSpec.from_string(device) for device in strategy.extended.worker_devices]
    canary.check([(one.device_type, one.device_index) for one in found] == [("CPU", 0)], f"it takes {found}")


def test_it_asks_upstream_afterwards():
    upstream = canary.find(EXTENDED)._initialize_local_devices
    with canary.module().local_devices(["CPU:0"]):
        assert canary.find(EXTENDED)._initialize_local_devices is not upstream
    assert canary.find(EXTENDED)._initialize_local_devices is upstream
