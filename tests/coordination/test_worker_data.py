"""Which data workers can read themselves, and that each reads what one device would."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import tfdist
from tfdist._compat.tensorflow_worker_datasets import NotReadableElsewhere, to_text
from tfdist.coordination.dealing import Lease
from tfdist.coordination.worker_data import MAX_TEXT_BYTES, WorkerData

pytestmark = pytest.mark.unit


def numbers(count: int = 20) -> tf.data.Dataset:
    return tf.data.Dataset.range(count)


def read(data: WorkerData, number: int) -> list[int]:
    """A pass over the data as a worker reads it."""
    opened = data.texts[0].open(tf.constant(data.texts[0].filling(data.texts[0].seeds(data.seed, number))))
    return [int(one) for one in opened]


def worker_data(dataset: tf.data.Dataset, seed: int = 5) -> WorkerData:
    return WorkerData([dataset], workers=2, seed=seed, on_pass=lambda _: None)


@pytest.mark.parametrize("reshuffles", [True, False])
@pytest.mark.parametrize("seed", [0, 3, -8])
def test_each_pass_is_shuffled_as_on_one_device(seed, reshuffles):
    tf.random.set_seed(4)
    dataset = numbers().shuffle(20, seed=seed, reshuffle_each_iteration=reshuffles)
    data = worker_data(dataset)
    # The dataset is iterated over here as Keras does, pass after pass.
    expected = [[int(one) for one in dataset] for _ in range(4)]
    assert [read(data, number) for number in range(4)] == expected


def test_two_shuffles_have_their_own_seeds():
    dataset = numbers().shuffle(20, seed=1).map(lambda x: x * 2).shuffle(7, seed=2)
    data = worker_data(dataset)
    assert [read(data, number) for number in range(3)] == [[int(one) for one in dataset] for _ in range(3)]


def test_repeated_shuffles_are_those_of_one_device_in_the_first_pass():
    dataset = numbers(6).shuffle(6, seed=1).repeat(3)
    assert read(worker_data(dataset), 0) == [int(one) for one in dataset]


def test_shuffles_without_a_seed_are_alike_in_all_workers_and_differ_from_pass_to_pass():
    tf.random.set_seed(None)
    data, other = (worker_data(numbers().shuffle(20)) for _ in range(2))
    first, second = read(data, 0), read(data, 1)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert read(other, 0) == first, "another worker's"
    assert read(worker_data(numbers().shuffle(20), seed=6), 0) != first, "another job's"


def reason(dataset: tf.data.Dataset, max_bytes: int = MAX_TEXT_BYTES) -> str:
    with pytest.raises(NotReadableElsewhere) as caught:
        to_text(dataset, max_bytes)
    return str(caught.value)


def python_map(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset.map(lambda x: tf.numpy_function(lambda y: y + 1, [x], tf.int64))


def table_map(dataset: tf.data.Dataset) -> tf.data.Dataset:
    initializer = tf.lookup.KeyValueTensorInitializer(tf.range(20, dtype=tf.int64), tf.range(20, dtype=tf.int64))
    table = tf.lookup.StaticHashTable(initializer, -1)
    return dataset.map(table.lookup)


def test_data_that_needs_python_is_not_readable_elsewhere():
    assert "Python" in reason(tf.data.Dataset.from_generator(lambda: range(3), output_signature=tf.TensorSpec([])))
    assert "Python" in reason(python_map(numbers()))
    assert "Python" in reason(numbers().flat_map(lambda x: python_map(numbers(3))))


def test_data_that_differs_from_process_to_process_is_not_readable_elsewhere():
    unordered = numbers().map(lambda x: x + 1, num_parallel_calls=2, deterministic=False)
    assert "deterministic=False" in reason(unordered)
    assert "shuffles inside" in reason(numbers().flat_map(lambda x: numbers().shuffle(3)))
    assert "RandomDataset" in reason(tf.data.Dataset.random().take(3))


def test_a_table_goes_along():
    assert read(worker_data(table_map(numbers(4))), 0) == [0, 1, 2, 3]


def test_data_in_the_description_is_not_worth_sending_to_all():
    array = tf.data.Dataset.from_tensor_slices(np.zeros(1000, "float32"))
    assert "holds data" in reason(array, max_bytes=2000)


@pytest.fixture
def pattern(tmp_path) -> str:
    pattern = str(tmp_path / "x-*.tfrecord")
    tfdist.data.write_tfrecords({"x": np.arange(50)}, pattern, num_shards=2, progress=False)
    return pattern


def test_records_are_indexed_behind_maps_and_prefetches_only(pattern):
    records = tfdist.data.read_tfrecords(pattern, batch_size=4)
    assert worker_data(records).is_indexed
    assert worker_data(records.map(lambda one: one["x"]).prefetch(2)).is_indexed
    assert not worker_data(records.shuffle(10)).is_indexed
    assert not worker_data(records.unbatch().batch(3)).is_indexed
    assert not worker_data(numbers()).is_indexed


def test_a_pass_begins_as_many_executions_as_there_are(pattern):
    data = worker_data(tfdist.data.read_tfrecords(pattern, batch_size=4))
    one = iter(data)
    leases = []
    with pytest.raises(StopIteration):
        while True:
            work = one.begin(5, always=True)
            while work.message(0) is None:  # worker 1 has not come for its part
                pass
            leases.append(work.lease)
    # 13 steps of 4 records, 5 at a time.
    assert sorted(leases) == [Lease(0, 5), Lease(5, 5), Lease(10, 3)]


def test_a_lease_stays_with_its_work_when_another_worker_takes_over():
    one = iter(worker_data(numbers()))
    work = one.begin(2, always=True)
    first, second = work.message(0), work.message(1)
    # The worker's index comes first, in 8 bytes.
    assert first[8:] == second[8:]
    assert work.lease == Lease(0, 2)
