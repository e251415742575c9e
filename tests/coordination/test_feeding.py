"""What the chief feeds: each batch once, in order, and no more read from its source than asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tensorflow as tf

from tfdist.coordination.feeding import FedData, Feed, without_optional

pytestmark = pytest.mark.unit


def numbers(batches: list[tf.Tensor]) -> list[int]:
    return [int(batch) for batch in batches]


def test_batches_come_in_order_and_end():
    assert numbers(list(Feed(tf.data.Dataset.range(4)))) == [0, 1, 2, 3]


def test_the_last_take_has_what_is_left():
    feed = Feed(tf.data.Dataset.range(5))
    assert [numbers(feed.take(2)) for _ in range(3)] == [[0, 1], [2, 3], [4]]
    with pytest.raises(StopIteration):
        feed.take(2)


def test_data_that_ends_with_a_take_ends_before_the_next():
    feed = Feed(tf.data.Dataset.range(4))
    assert [numbers(feed.take(2)) for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(StopIteration):
        feed.take(2)


def test_looking_ahead_takes_nothing():
    feed = Feed(tf.data.Dataset.range(4))
    assert numbers(feed.look(2)) == [0, 1]
    assert numbers(feed.look(3)) == [0, 1, 2]
    assert numbers(feed.look(1)) == [0]
    assert int(next(feed)) == 0
    assert numbers(feed.look(9)) == [1, 2, 3]
    assert numbers(feed.take(9)) == [1, 2, 3]
    assert feed.look(1) == []


def test_what_was_looked_at_is_the_very_batch_that_comes():
    feed = Feed(tf.data.Dataset.range(2))
    (seen,) = feed.look(1)
    assert next(feed) is seen


def test_the_last_batch_is_remembered():
    feed = Feed(tf.data.Dataset.range(3))
    assert feed.last is None
    assert feed.take(2)[-1] is feed.last
    feed.look(1)
    assert int(feed.last) == 1


def test_no_more_is_read_than_was_asked_for():
    """A generator that can't be rewound gives its next batch to whoever reads it next."""
    read: list[int] = []

    def generator() -> Iterator[int]:
        for number in range(9):
            read.append(number)
            yield number

    options = tf.data.Options()
    options.autotune.enabled = False  # else TensorFlow itself reads ahead
    dataset = tf.data.Dataset.from_generator(generator, output_signature=tf.TensorSpec([], tf.int32))
    feed = Feed(dataset.with_options(options))
    feed.take(1)
    assert read == [0]
    feed.take(2)
    assert read == [0, 1, 2]
    feed.look(1)
    assert read == [0, 1, 2, 3]


def test_each_pass_begins_at_the_first_batch_and_is_announced():
    passes: list[Feed] = []
    data = FedData(tf.data.Dataset.range(2), passes.append)
    first, second = iter(data), iter(data)
    assert passes == [first, second]
    assert numbers(list(first)) == numbers(list(second)) == [0, 1]
    assert data.element_spec == tf.TensorSpec([], tf.int64)


def test_optionals_that_keras_puts_in_are_none():
    """In the specification and in the batches, wherever they are."""
    spec = tf.TensorSpec([], tf.int64)
    dataset = tf.data.Dataset.range(1).map(lambda x: ({"x": x}, tf.experimental.Optional.empty(spec)))
    feed = Feed(dataset)
    assert feed.spec == ({"x": spec}, None)
    inputs, label = next(feed)
    assert (int(inputs["x"]), label) == (0, None)
    assert without_optional(3) == 3
