"""The arithmetic of batches, worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfdist.gradients import BatchSizes

pytestmark = pytest.mark.unit


def test_a_global_batch_is_divided_among_micro_batches_and_replicas():
    sizes = BatchSizes(global_batch=4096, replicas=2, gradient_accumulation_steps=8)
    assert sizes.micro_batch == 512
    assert sizes.per_replica_batch == 256
    assert str(sizes) == "4,096 rows an optimizer step = 8 micro-batches x 512 rows = 8 x 2 replicas x 256 rows"


def test_without_accumulation_a_batch_is_a_step():
    sizes = BatchSizes(global_batch=64)
    assert (sizes.micro_batch, sizes.per_replica_batch) == (64, 64)
    assert str(sizes) == "64 rows an optimizer step = 1 micro-batch x 64 rows = 1 x 1 replica x 64 rows"


def test_it_can_start_from_the_batch_of_the_dataset():
    sizes = BatchSizes.from_micro_batch(512, replicas=2, gradient_accumulation_steps=8)
    assert sizes == BatchSizes(global_batch=4096, replicas=2, gradient_accumulation_steps=8)


@pytest.mark.parametrize(
    "rows_that_fit, steps, rows",
    [(4096, 1, 2048), (2048, 1, 2048), (2047, 2, 1024), (300, 8, 256), (3, 1024, 2), (1, 2048, 1)],
)
def test_it_finds_the_fewest_micro_batches_that_fit(rows_that_fit, steps, rows):
    sizes = BatchSizes.that_fit(global_batch=4096, max_per_replica_batch=rows_that_fit, replicas=2)
    assert (sizes.gradient_accumulation_steps, sizes.per_replica_batch) == (steps, rows)


@pytest.mark.parametrize(
    "rows, micro_batches, optimizer_steps",
    [(60_000, 118, 15), (4096, 8, 1), (4097, 9, 2), (1, 1, 1)],
)
def test_an_epoch_ends_with_what_is_left(rows, micro_batches, optimizer_steps):
    sizes = BatchSizes(global_batch=4096, gradient_accumulation_steps=8)
    assert sizes.micro_batches(rows) == micro_batches
    assert sizes.optimizer_steps(rows) == optimizer_steps


def test_numbers_of_numpy_are_taken_and_nothing_can_be_changed():
    sizes = BatchSizes(global_batch=np.int64(64), replicas=np.int32(2))
    assert type(sizes.global_batch) is int
    with pytest.raises(dataclasses.FrozenInstanceError):
        sizes.replicas = 4


@pytest.mark.parametrize(
    "numbers, message",
    [
        ({"global_batch": 4100, "replicas": 2, "gradient_accumulation_steps": 8}, r"8 x 2 = 16.*Take 4,096 or 4,112\."),
        ({"global_batch": 3, "replicas": 2}, r"Received: global_batch=3. Take 2 or 4\."),
        ({"global_batch": 3, "gradient_accumulation_steps": 4}, r"Received: global_batch=3. Take 4\."),
        ({"global_batch": 0}, "global_batch of at least 1. Received: global_batch=0"),
        ({"global_batch": 8, "replicas": -1}, "replicas of at least 1. Received: replicas=-1"),
    ],
)
def test_what_can_not_be_divided_is_refused_with_numbers_that_can(numbers, message):
    with pytest.raises(ValueError, match=message):
        BatchSizes(**numbers)


@pytest.mark.parametrize("value", [True, 64.0, "64", None])
def test_what_is_no_int_is_refused(value):
    with pytest.raises(TypeError, match=r"Expected: global_batch as an int\. Received: global_batch="):
        BatchSizes(global_batch=value)
    with pytest.raises(TypeError, match="Expected: micro_batch as an int"):
        BatchSizes.from_micro_batch(value)


def test_rows_that_fit_must_be_some():
    with pytest.raises(ValueError, match="max_per_replica_batch of at least 1"):
        BatchSizes.that_fit(global_batch=8, max_per_replica_batch=0)
