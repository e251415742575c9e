"""What TensorFlow's strategy is told of a cluster."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tfdist.cluster import Cluster, Task
from tfdist.strategies.multi_worker_mirrored import as_resolver

pytestmark = pytest.mark.unit

TWO = Cluster({"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, Task("worker", 1))


@pytest.mark.parametrize("cluster", [TWO, Cluster.from_tf_config("{}")], ids=["two workers", "local"])
def test_gpus_of_this_machine_are_counted(cluster):
    """Upstream takes a resolver that says nothing of them for a machine without."""
    count = len(tf.config.list_physical_devices("GPU"))
    assert as_resolver(cluster).num_accelerators() == {"GPU": count}


def test_a_clusters_tasks():
    resolver = as_resolver(TWO)
    assert resolver.cluster_spec().as_dict() == {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    assert (resolver.task_type, resolver.task_id, resolver.rpc_layer) == ("worker", 1, "grpc")


def test_a_resolver_is_left_as_it_is():
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert as_resolver(resolver) is resolver
