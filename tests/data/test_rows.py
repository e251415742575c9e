"""Slices of a global batch: every row once, in order, sizes at most one apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfdist.data.rows import mark_share, replica_slices, shard_policy, slice_rows


def ragged(rows: int) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_row_lengths(tf.range(rows * (rows - 1) // 2), tf.range(rows))


@pytest.mark.unit
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [0, 1, 2, 4, 5, 13])
def test_every_row_once_and_in_order(rows: int, count: int) -> None:
    batch = {
        "dense": tf.reshape(tf.range(2 * rows), [rows, 2]),
        "words": tf.strings.as_string(tf.range(rows)),
        "sparse": tf.sparse.from_dense(tf.reshape(tf.range(1, 2 * rows + 1), [rows, 2])),
        "ragged": ragged(rows),
        "scalar": tf.constant(7),
        "missing": None,
    }
    parts = [slice_rows(batch, index, count) for index in range(count)]
    sizes = [len(part["dense"]) for part in parts]
    assert sum(sizes) == rows
    assert max(sizes) - min(sizes) <= 1
    for name in ("dense", "words"):
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), batch[name])
    dense = [tf.sparse.to_dense(part["sparse"]) for part in parts]
    np.testing.assert_array_equal(np.concatenate(dense), batch["dense"] + 1)
    assert list(itertools.chain(*(part["ragged"].to_list() for part in parts))) == batch["ragged"].to_list()
    assert all(int(part["scalar"]) == 7 and part["missing"] is None for part in parts)


@pytest.mark.unit
def test_static_shape_is_kept_where_slices_are_equal() -> None:
    assert slice_rows(tf.zeros([6, 2]), 1, 3).shape == [2, 2]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (1, [[2], [6], []]),  # of 8-9 replica 2 of 4 gets rows [2*2//4, 2*3//4) = [1, 1): none
        (2, [[2], [3], [6], [7], [], [9]]),
    ],
)
def test_a_worker_gets_its_replicas_slices_one_after_another(local: int, expected: list[list[int]]) -> None:
    dataset = tf.data.Dataset.range(10).batch(4)  # 0-3, 4-7, 8-9
    sliced = replica_slices(dataset, first=2, local=local, count=4)
    assert [part.tolist() for part in sliced.as_numpy_iterator()] == expected


@pytest.mark.unit
def test_a_share_stays_marked_through_transformations() -> None:
    off = tf.data.experimental.AutoShardPolicy.OFF
    marked = mark_share(tf.data.Dataset.range(4)).map(lambda value: value).batch(2).prefetch(1)
    assert shard_policy(marked) == off
    assert shard_policy(tf.data.Dataset.range(4)) != off
