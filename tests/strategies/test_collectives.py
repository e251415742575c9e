"""Gradients in buckets between workers: what one device gives, in one order on all of them."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow.python.eager import context

import tfdist
from tests.helpers.cluster_runner import run_python
from tests.helpers.once import once
from tests.strategies.programs.collectives import BUCKET_BYTES, VARIANTS, build, train, values_of

cluster = pytest.mark.cluster
#: Of three workers only what differs.
RUNS = {2: [*VARIANTS], 3: ["buckets", "gathered", "no buckets"]}
both = pytest.mark.parametrize("workers", RUNS)
in_variants = pytest.mark.parametrize(
    ("workers", "variant"), [(n, name) for n, names in RUNS.items() for name in names]
)


@once
def found(workers: int) -> list[dict[str, Any]]:
    """What each worker kept."""
    with tempfile.TemporaryDirectory(prefix="tfdist-collectives-") as folder:
        arguments = ["-m", "tests.strategies.programs.collectives", folder, *RUNS[workers]]
        run_python(arguments, workers=workers, logs=Path(folder) / "logs")
        return [pickle.loads(path.read_bytes()) for path in sorted(Path(folder).glob("*.pickle"))]


@functools.cache
def on_one_device() -> dict[str, Any]:
    return train(build())


@cluster
@in_variants
def test_training_is_that_of_one_device(workers: int, variant: str) -> None:
    expected = on_one_device()
    for worker in found(workers):
        got = worker[variant]
        for one, other in zip(got["weights"], expected["weights"], strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)
        for name, values in expected["history"].items():
            np.testing.assert_allclose(got["history"][name], values, rtol=1e-5, err_msg=name)


@cluster
@in_variants
def test_all_workers_hold_the_same_bits(workers: int, variant: str) -> None:
    first, *others = (worker[variant] for worker in found(workers))
    for other in others:
        for key in ("weights", "sums"):
            for one, two in zip(first[key], other[key], strict=True):
                np.testing.assert_array_equal(one, two)


@cluster
@in_variants
def test_sums_are_exact(workers: int, variant: str) -> None:
    """Of two numbers to the bit, whatever the buckets; of three up to the order in which they are added."""
    for worker in found(workers):
        parts = zip(*(values_of(replica) for replica in range(workers)), strict=True)
        for got, values in zip(worker[variant]["sums"], parts, strict=True):
            assert got.dtype == values[0].dtype
            if workers == 2:
                np.testing.assert_array_equal(got, values[0] + values[1])
            else:
                np.testing.assert_allclose(got, sum(values), rtol=1e-6, atol=1e-6)


@cluster
def test_weights_of_two_workers_are_the_same_bits_in_buckets_and_without() -> None:
    for worker in found(2):
        for variant in VARIANTS:
            for one, other in zip(worker[variant]["weights"], worker["no buckets"]["weights"], strict=True):
                np.testing.assert_array_equal(one, other)


@cluster
@in_variants
def test_all_workers_reduce_in_one_order(workers: int, variant: str) -> None:
    """Float32 values of 400, 3, 1 and 30 elements, float64 ones of 70; buckets are 64 float32 or 32 float64."""
    expected = {
        "buckets": [30, *[57] * 6, 58, 4, 23, 23, 24],
        "gathered": [30, *[57] * 6, 58, 4, 23, 23, 24],
        "fresh keys": [30, *[57] * 6, 58, 4, 23, 23, 24],
        "user's": [200, 200, 34, 70],
        "one bucket": [434, 70],
        "no buckets": [434, 70],
    }
    for worker in found(workers):
        reductions = worker[variant]["reductions"]
        assert reductions == found(workers)[0][variant]["reductions"]
        assert sorted(size for _, size, _ in reductions) == sorted(expected[variant])
        assert reductions[-1][0] == "float64"
        expected_operation = "CollectiveGatherV2" if variant == "gathered" else "CollectiveReduceV2"
        assert worker[variant]["operations"] == {expected_operation}


@cluster
def test_a_bucket_waits_for_no_gradient_of_earlier_layers() -> None:
    """Four layers, a bucket each: three multiplications forward and one back for the last layer, two for each other."""
    for worker in found(2):
        assert worker["buckets"]["layers"][-4:] == [4, 6, 8, 10]
        assert worker["no buckets"]["layers"][-1] == 10


@cluster
def test_keys_are_kept_and_none_is_used_twice() -> None:
    for worker in found(2):
        for variant in ("buckets", "gathered", "user's", "one bucket"):
            keys = [key for _, _, key in worker[variant]["reductions"]]
            assert all(key >= 1 << 30 for key in keys)
            assert len(set(keys)) == len(keys)
        assert {key for _, _, key in worker["fresh keys"]["reductions"]} == {-1}, "known when they run"


@cluster
def test_the_users_options_come_first() -> None:
    for worker in found(2):
        assert worker["user's"]["bucket_bytes"] == 1024
        assert worker["buckets"]["bucket_bytes"] == BUCKET_BYTES
        assert worker["no buckets"]["bucket_bytes"] == 0
        assert worker["one bucket"]["bucket_bytes"] == (
            tfdist.MultiWorkerMirroredStrategy.collective_settings.bucket_bytes
        )


@cluster
def test_processes_receive_in_larger_pieces_and_keep_memory() -> None:
    """A buffer of 64 MB has 16,384 pages, which the second one finds where the first one was."""
    for worker in found(2):
        before, after = worker["faults"]
        assert worker["receive chunk"] == 64 << 10
        assert after < 2000 < 16_000 < before


@pytest.mark.unit
@pytest.mark.parametrize(("replicas", "expected"), [(2, 65536), (3, 12288), (4, 8192), (64, 4228)])
def test_what_is_gathered_shrinks_with_the_number_of_workers(replicas: int, expected: int) -> None:
    """A ring of n hands on an n-th of a bucket in each of twice as many messages."""
    settings = tfdist.MultiWorkerMirroredStrategy.collective_settings
    assert settings.gathered_bytes_among(replicas) == expected
    assert dataclasses.replace(settings, gathered_bytes=0).gathered_bytes_among(replicas) == 0


@pytest.mark.unit
def test_one_process_has_no_buckets() -> None:
    """Its replicas share memory."""
    strategy = tfdist.MirroredStrategy(["CPU:0"])
    assert strategy.bucket_bytes == 0
    assert strategy.gathered_bytes == 0
    assert not strategy.keeps_keys
    assert context.context().config.experimental.recv_buf_max_chunk == 0
