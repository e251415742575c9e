from __future__ import annotations

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_datasets")


def test_datasets_say_what_they_were_made_from():
    first, second = tf.data.Dataset.range(3), tf.data.Dataset.range(4)
    canary.has(first, "_inputs")
    made = tf.data.Dataset.zip((first.map(lambda i: i + 1), second.batch(2))).prefetch(1).repeat(2)
    found = list(canary.module().origins(made))
    canary.check(found[0] is made, "the dataset itself is not the first")
    canary.check(
        any(one is first for one in found) and any(one is second for one in found), "_inputs() doesn't lead to all"
    )


def test_what_is_no_dataset_has_no_origins():
    assert list(canary.module().origins([1, 2])) == []


def test_datasets_say_where_they_were_made():
    """No test makes this process part of a cluster, so that is before."""
    canary.has(tf.data.Dataset.range(3), "_variant_tensor")
    canary.check(canary.module().is_left_behind(tf.data.Dataset.range(3)), "the device of a dataset is another")


def test_keras_takes_the_class_for_a_distributed_dataset():
    cls = canary.find("tensorflow.python.distribute.input_lib:DistributedDatasetsFromFunction")
    is_tf_dataset = canary.find("keras.src.trainers.data_adapters:is_tf_dataset")
    canary.check(issubclass(cls, tf.distribute.DistributedDataset), "the class is no DistributedDataset")
    canary.check(is_tf_dataset(cls.__new__(cls)), "Keras takes it for no dataset")
