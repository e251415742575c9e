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
