"""What `distribute_datasets_from_function` takes and returns; training on it is in tests/strategies."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from tfdist.coordination.worker_data import in_turns
from tfdist.coordination.worker_streams import DistributedStreams, check_streams

pytestmark = pytest.mark.unit


def streams(*counts: int) -> list[tf.data.Dataset]:
    return [tf.data.Dataset.range(count) for count in counts]


def distributed(datasets: list[tf.data.Dataset]) -> DistributedStreams:
    return DistributedStreams(datasets, in_turns)


def test_streams_in_turns_give_all_there_is():
    assert [int(one) for one in in_turns(streams(2, 4, 1))] == [0, 0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((3, 4), 7), ((3, None), tf.data.INFINITE_CARDINALITY)],
)
def test_the_number_of_batches_is_that_of_all_streams(counts, expected):
    made = [tf.data.Dataset.range(1).repeat() if one is None else tf.data.Dataset.range(one) for one in counts]
    assert distributed(made).cardinality == expected


def test_streams_are_mapped_as_datasets_are():
    mapped = distributed(streams(2, 1)).map(lambda x: x + 10).prefetch(1)
    assert [int(one) for one in mapped] == [10, 10, 11]


@pytest.mark.parametrize(
    ("others", "error", "text"),
    [([[1, 2]], TypeError, "for worker 1"), ([tf.data.Dataset.from_tensors(1.0)], ValueError, "worker 1")],
)
def test_streams_that_cannot_be_read_together_are_refused(others: list[Any], error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        check_streams([*streams(3), *others])
