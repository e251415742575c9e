"""Each worker's share of a global batch."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from tfdist.data import ShardOptions
from tfdist.data.sharding import default_shard

pytestmark = pytest.mark.unit

TWO_WORKERS = {"worker": ["localhost:11111", "localhost:22222"]}


@pytest.mark.parametrize("num_shards, index", [(0, 0), (-1, 0), (2, 2), (2, -1)])
def test_a_shard_that_does_not_exist_is_refused(num_shards, index):
    with pytest.raises(ValueError, match=r"Received: (num_shards|index)=-?\d"):
        ShardOptions(num_shards, index)


@pytest.mark.parametrize("num_shards, index", [(2.0, 0), ("2", 0), (2, None), (True, 0)])
def test_a_shard_that_is_no_number_is_refused(num_shards, index):
    with pytest.raises(TypeError, match="must be an integer"):
        ShardOptions(num_shards, index)


def test_without_tf_config_a_worker_reads_everything(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert default_shard() == ShardOptions(1, 0)


@pytest.mark.parametrize(
    "jobs, task, expected",
    [
        (TWO_WORKERS, ("worker", 1), ShardOptions(2, 1)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, ("chief", 0), ShardOptions(3, 0)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, ("worker", 1), ShardOptions(3, 2)),
        (TWO_WORKERS, ("evaluator", 0), ShardOptions(1, 0)),
    ],
)
def test_the_share_follows_tf_config(monkeypatch, jobs, task, expected):
    config = {"cluster": jobs, "task": {"type": task[0], "index": task[1]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert default_shard() == expected


def test_in_the_scope_of_a_one_process_strategy_the_share_is_everything(monkeypatch):
    config = {"cluster": TWO_WORKERS, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with tf.distribute.OneDeviceStrategy("cpu:0").scope():
        assert default_shard() == ShardOptions(1, 0)
