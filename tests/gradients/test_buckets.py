"""Buckets: every element in one of them, none too large, the last values first."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfdist.gradients.buckets import Part, in_buckets, plan_buckets

pytestmark = pytest.mark.unit

SIZES = [
    [784 * 1024, 1024, 1024 * 1024, 1024, 10_240, 10],
    [1, 7, 8, 9, 100, 0, 3],
    [25_000],
    [3] * 50,
    [],
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("limit", [1, 8, 1000, 1 << 20])
def test_every_element_is_in_one_bucket_and_none_is_too_large(sizes, limit):
    if limit == 1 and sum(sizes) > 100_000:
        pytest.skip("a bucket for each of a million elements")
    buckets = list(plan_buckets(sizes, limit))
    assert all(len(bucket) > 0 and sum(part.size for part in bucket) <= limit for bucket in buckets)
    for place, size in enumerate(sizes):
        parts = sorted(part for part in itertools.chain.from_iterable(buckets) if part.place == place)
        assert [part.begin for part in parts] == [0, *(part.end for part in parts[:-1])]
        assert parts[-1].end == size


def test_the_last_values_go_first_and_the_small_ones_together():
    """As in the module's docstring, with buckets of 12."""
    w1, b1, w2, b2, w3 = range(5)
    assert list(plan_buckets([30, 1, 6, 1, 2], 12)) == [
        [Part(w2, 0, 6)],
        [Part(w1, 0, 10)],
        [Part(w1, 10, 20)],
        [Part(w1, 20, 30)],
        [Part(w3, 0, 2), Part(b2, 0, 1), Part(b1, 0, 1)],
    ]


def test_large_values_may_stay_whole():
    assert list(plan_buckets([30, 1, 6, 0], 12, cuts=False)) == [
        [Part(2, 0, 6)],
        [Part(0, 0, 30)],
        [Part(3, 0, 0), Part(1, 0, 1)],
    ]


@pytest.mark.parametrize("bucket_bytes", [1, 16, 400, 1 << 20])
@pytest.mark.parametrize("traced", [True, False])
def test_what_is_sent_comes_back_to_its_place(bucket_bytes, traced):
    values = [np.arange(size, dtype="float32") + 1000 * place for place, size in enumerate((60, 1, 0, 12, 100))]
    values = [values[0].reshape(5, 12), values[1].reshape(()), *values[2:4], values[4].reshape(10, 1, 10)]
    sizes = []

    def send(flat: tf.Tensor) -> tf.Tensor:
        sizes.append(flat.shape.num_elements())
        return flat * 2 + 1

    def run() -> list[tf.Tensor]:
        return in_buckets([tf.constant(value) for value in values], send, bucket_bytes=bucket_bytes)

    for got, value in zip((tf.function(run) if traced else run)(), values, strict=True):
        assert got.shape == value.shape
        np.testing.assert_array_equal(got, value * 2 + 1)
    assert max(sizes) <= max(1, bucket_bytes // 4)
    assert sum(sizes) == 173
    assert (len(sizes) == 1) == (bucket_bytes == 1 << 20)
