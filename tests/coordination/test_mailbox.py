"""Gradients wait under their numbers and are averaged by their weights, here in this process in place of a ps."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdist.coordination.mailbox import Mailbox

pytestmark = pytest.mark.unit

_names = itertools.count()


class Box:
    """A mailbox for a dense gradient of 2, one of rows of a [3, 1] table, and a variable without any."""

    def __init__(self, name: str | None = None, indices: tf.DType = tf.int64) -> None:
        self.indices = indices
        self.variables = [keras.Variable(np.zeros(shape, "float32")) for shape in ([2], [3, 1], [1])]
        self.mailbox = Mailbox(name or f"tests/{next(_names)}", self.gradients([0, 0], [0], [0]), self.variables)

    def gradients(self, dense: list[float], rows: list[float], indices: list[int]) -> list[Any]:
        values = tf.constant(rows, tf.float32)[:, None]
        slices = tf.IndexedSlices(values, tf.constant(indices, self.indices), tf.constant([3, 1], self.indices))
        return [tf.constant(dense, tf.float32), slices, None]

    def put(self, number: int, weight: float, dense: list[float], rows: list[float], indices: list[int]) -> None:
        self.mailbox.put(tf.constant(number, tf.int64), self.gradients(dense, rows, indices), tf.constant(weight))

    def take(self, *numbers: int) -> tuple[list[float], list[float]]:
        dense, rows, nothing = self.mailbox.take_mean([tf.constant(number, tf.int64) for number in numbers])
        assert nothing is None
        table = tf.math.unsorted_segment_sum(rows.values, rows.indices, 3)
        return dense.numpy().tolist(), table.numpy().ravel().tolist()

    @property
    def size(self) -> int:
        (envelope,) = self.mailbox._envelopes
        return int(tf.raw_ops.MapSize(dtypes=list(envelope.dtypes), shared_name=envelope.name))


def test_the_mean_is_that_of_all_rows():
    """Weights 1 and 3: (1 x 4 + 3 x 8) / 4; rows add up over both."""
    box = Box()
    box.put(1, 1.0, [4, 0], [4, 8], [0, 2])
    box.put(2, 3.0, [8, 4], [4], [2])
    assert box.take(1, 2) == ([7, 3], [1, 0, 5])
    assert box.size == 0


def test_under_one_number_is_what_came_first():
    """An execution that two workers made."""
    box = Box()
    box.put(1, 1.0, [4, 0], [4], [0])
    box.put(1, 2.0, [9, 9], [9], [1])
    assert box.size == 1
    assert box.take(1) == ([4, 0], [4, 0, 0])


def test_what_is_dropped_is_gone_and_nothing_else():
    box = Box()
    box.put(1, 1.0, [4, 0], [4], [0])
    box.put(2, 1.0, [6, 0], [6], [0])
    box.mailbox.drop(tf.constant(1, tf.int64))
    assert box.size == 1
    assert box.take(2) == ([6, 0], [6, 0, 0])


def test_all_can_be_cleared():
    box = Box()
    for number in range(3):
        box.put(number, 1.0, [4, 0], [4], [0])
    box.mailbox.clear()
    assert box.size == 0


def test_functions_of_one_step_share_a_mailbox():
    name = f"tests/{next(_names)}"
    one, other = Box(name), Box(name)
    one.put(1, 1.0, [4, 0], [4], [0])
    other.put(2, 1.0, [6, 0], [6], [0])
    assert one.take(1, 2) == ([5, 0], [5, 0, 0])


def test_gradients_of_other_types_lie_apart():
    """As of data with other integers: TensorFlow keeps the types with which a name was used first."""
    name = f"tests/{next(_names)}"
    one, other = Box(name), Box(name, tf.int32)
    one.put(1, 1.0, [4, 0], [4], [0])
    other.put(1, 1.0, [6, 0], [6], [0])
    assert one.take(1) == ([4, 0], [4, 0, 0])
    assert other.take(1) == ([6, 0], [6, 0, 0])
