"""Sums of which 16 bits an element are sent: the very bits that their formula gives, on all replicas."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.gradients.programs.rounded_sum import WIRES, values_of
from tests.helpers.cluster_runner import run_python
from tests.helpers.setups import WORKERS
from tfdist.gradients.rounded_sum import sum_in_float32


def rounded(value: np.ndarray, wire: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return value.astype(tf.as_dtype(wire).as_numpy_dtype).astype("float32")


def expected(replicas: int, wire: str) -> list[np.ndarray]:
    sums = []
    for parts in zip(*(values_of(replica) for replica in range(replicas)), strict=True):
        total = rounded(parts[0], wire)
        for part in parts[1:]:
            total = total + rounded(part, wire)
        sums.append(rounded(total, wire) if replicas > 2 else total)
    return sums


@pytest.mark.cluster
@pytest.mark.parametrize("setup", ["mirrored3", "workers2", "workers3"])
def test_the_sum_is_that_of_the_rounded_values_to_the_bit(setup: str, tmp_path: Path) -> None:
    run_python(
        ["-m", "tests.gradients.programs.rounded_sum", setup, str(tmp_path)], workers=WORKERS[setup], logs=tmp_path
    )
    found = {key: sums for path in tmp_path.glob("*.pickle") for key, sums in pickle.loads(path.read_bytes()).items()}
    replicas = int(setup[-1])
    assert sorted(found) == [(way, index) for way in ("eager", "traced") for index in range(replicas)]
    for sums in found.values():
        for wire, of_wire in zip(WIRES, sums, strict=True):
            for got, wanted in zip(of_wire, expected(replicas, wire), strict=True):
                np.testing.assert_array_equal(got, wanted, err_msg=wire)


@pytest.mark.unit
def test_one_replica_rounds_nothing() -> None:
    value = tf.constant([1.0 + 2**-20])
    (total,) = sum_in_float32([value])
    assert total is value


@pytest.mark.unit
@pytest.mark.parametrize(
    ("value", "wire", "says"),
    [
        (tf.ones([2], tf.float64), "bfloat16", "dense float32 tensors with static shapes"),
        (tf.IndexedSlices(tf.ones([1, 2]), tf.constant([0])), "bfloat16", "dense float32 tensors with static shapes"),
        (tf.ones([2]), "float32", "Received: wire_dtype='float32'"),
    ],
)
def test_what_cannot_be_rounded_is_refused(value: object, wire: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sum_in_float32([value], wire)
