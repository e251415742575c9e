from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_shard_initializers")
FANS = "keras.src.initializers.random_initializers:compute_fans"


def shard(initializer, whole, part, first_row):
    drawn = canary.module().by_shard(initializer, whole, "float32")
    return np.asarray(drawn(partition_shape=tf.TensorShape(part), partition_offset=(first_row, 0)))


def test_what_is_used_of_upstream_is_there():
    canary.takes(canary.find(FANS), (2, 3), input_axes=None, output_axes=None)
    canary.has(keras.initializers.HeNormal(), "seed", "scale", "mode", "input_axes", "output_axes")


def test_upstream_draws_the_same_again():
    draw = keras.initializers.RandomNormal(seed=1)
    canary.check(np.array_equal(draw((3, 2)), draw((3, 2))), "a seed gives other numbers each time; ours can go")


@pytest.mark.parametrize("name", ["GlorotUniform", "HeNormal", "LecunNormal"])
def test_scale_is_that_of_the_whole(name):
    initializer = getattr(keras.initializers, name)(seed=1)
    found = shard(initializer, (4000, 8), (1000, 8), 1000)
    np.testing.assert_allclose(found.std(), np.std(initializer((4000, 8))), rtol=0.05)


def test_shards_differ_and_are_the_same_again():
    initializer = keras.initializers.RandomUniform(seed=1)
    first, second, again = (shard(initializer, (8, 2), (4, 2), row) for row in (0, 4, 0))
    assert not np.any(first == second)
    np.testing.assert_array_equal(first, again)


def test_a_large_shard_is_written_in_blocks(monkeypatch):
    """Each drawn by itself, the last one smaller, and no row left out."""
    monkeypatch.setattr(canary.module(), "_BLOCK_BYTES", 3 * 2 * 4)
    drawn, upstream = [], keras.initializers.RandomNormal.__call__

    def call(self, shape, dtype=None):
        drawn.append(tuple(shape))
        return upstream(self, shape, dtype)

    monkeypatch.setattr(keras.initializers.RandomNormal, "__call__", call)
    initializer = canary.module().by_shard(keras.initializers.RandomNormal(1.0, seed=1), (16, 2), "float32")
    part = tf.Variable(initializer(partition_shape=tf.TensorShape([8, 2]), partition_offset=(8, 0)))
    part.assign(tf.fill([8, 2], np.nan))  # what memory holds that was not written to
    initializer.fill(part, 8)
    assert drawn == [(3, 2), (3, 2), (2, 2)]
    assert len(np.unique(part)) == 16
    assert np.abs(part - 1.0).max() < 1


def test_a_small_shard_is_not_filled_again():
    initializer = canary.module().by_shard(keras.initializers.Ones(), (16, 2), "float32")
    part = tf.Variable(tf.zeros([8, 2]))
    initializer.fill(part, 8)
    assert not np.any(part)


def test_the_whole_is_upstreams():
    initializer = keras.initializers.HeNormal(seed=1)
    whole = canary.module().by_shard(initializer, (8, 2), "float32")()
    np.testing.assert_array_equal(whole, initializer((8, 2)))


@pytest.mark.parametrize(
    "initializer", [keras.initializers.Orthogonal(), keras.initializers.Constant(np.ones(2)), lambda shape, dtype: 0]
)
def test_others_are_called_for_the_whole(initializer):
    assert canary.module().by_shard(initializer, (8, 2), "float32") is None
