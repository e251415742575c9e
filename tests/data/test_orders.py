"""Orders: functions of seed and epoch alone, well mixed, in groups of similar length, in exact proportions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

import tfdist.data.reading.orders
import tfdist.data.reading.reader_calls
from tests.helpers.tfrecords import ID, even, flat, ids_of, read_ids, record, strings, together, write_shards
from tfdist.data import ShardOptions, VariableLength, read_tfrecords

pytestmark = pytest.mark.unit

SHUFFLES = ("local", "global")


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    """3,000 records in 6 files, read in many chunks."""
    return write_shards(tmp_path_factory.mktemp("orders"), even(3000, 6))


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("group_by_length", [0, 4])
def test_the_order_does_not_depend_on_threads(pattern, shuffle, group_by_length):
    dataset = read_tfrecords(pattern, ID, batch_size=16, shuffle=shuffle, group_by_length=group_by_length)
    expected = ids_of(dataset)
    for threads in (1, 7):
        again = read_tfrecords(pattern, ID, batch_size=16, shuffle=shuffle, group_by_length=group_by_length)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        options.autotune.enabled = threads > 1
        assert ids_of(again.with_options(options)) == expected


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_each_epoch_and_each_seed_has_its_own_order(pattern, shuffle):
    orders = []
    for seed in (None, 1, -1):
        dataset = read_tfrecords(pattern, ID, batch_size=100, shuffle=shuffle, seed=seed)
        orders += [flat(ids_of(dataset)) for _ in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    assert all(sorted(order) == list(range(3000)) for order in orders)
    zero = read_tfrecords(pattern, ID, batch_size=100, shuffle=shuffle, seed=0)
    assert flat(ids_of(zero)) == orders[0], "None is 0"


@pytest.mark.parametrize("workers", [2, 3])
def test_global_batches_are_those_of_one_worker(pattern, workers):
    for options in ({}, {"group_by_length": 5}, {"drop_remainder": True}):
        options |= {"batch_size": 70, "shuffle": "global"}
        (alone,) = read_ids(pattern, **options)
        assert together(read_ids(pattern, workers=workers, **options)) == alone


def test_a_local_shuffle_keeps_to_the_workers_part(pattern):
    parts = [set(flat(one)) for one in read_ids(pattern, batch_size=60, workers=3, sharding="files")]
    datasets = [
        read_tfrecords(pattern, ID, batch_size=60, shuffle="local", shard=ShardOptions(3, worker))
        for worker in range(3)
    ]
    for _ in range(2):
        assert [set(flat(ids_of(dataset))) for dataset in datasets] == parts


def correlation(ids: list[int]) -> float:
    """Of places and record numbers: 1 in the order of the files, 0 +- n^-1/2 where uniformly shuffled."""
    return abs(float(np.corrcoef(np.arange(len(ids)), ids)[0, 1]))


def neighbours(ids: list[int]) -> float:
    """Part of the records that are followed by their neighbour in the file."""
    return float(np.mean(np.abs(np.diff(ids)) == 1))


@pytest.mark.parametrize("buffer, most", [(3000, 0.005), (320, 0.02), (64, 0.08)])
def test_a_local_shuffle_mixes_also_in_a_small_buffer(pattern, buffer, most):
    """In a window of b records of 16 blocks, b/16 each, a record is followed by a neighbour with chance < 2/b."""
    dataset = read_tfrecords(pattern, ID, batch_size=50, shuffle="local", shuffle_buffer=buffer)
    epochs = [flat(ids_of(dataset)) for _ in range(4)]
    assert np.mean([neighbours(ids) for ids in epochs]) < most
    # Blocks of b/16 records are permuted: 3,000 records in 48 or more blocks of at most 64.
    assert np.mean([correlation(ids) for ids in epochs]) < 0.25


def test_where_data_is_larger_than_the_buffer_a_local_shuffle_reads_blocks(pattern, monkeypatch):
    """A window must not touch more blocks than are kept in memory."""
    monkeypatch.setattr(tfdist.data.reading.orders, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr("tfdist.data.reading.access._SMALL_BYTES", 0)
    dataset = read_tfrecords(pattern, ID, batch_size=50, shuffle="local", shuffle_buffer=500)
    assert sorted(flat(ids_of(dataset))) == list(range(3000))


def test_a_global_shuffle_is_uniform(tmp_path):
    """Each of 6 records is at each of 6 places in about 100 of 600 epochs; chi-squared with 25 degrees of freedom."""
    dataset = read_tfrecords(write_shards(tmp_path, [4, 2]), ID, batch_size=6, shuffle="global").repeat(1)
    reader = tfdist.data.reading.reader_calls.readers_of(dataset)[0]
    seen = np.zeros((6, 6))
    for epoch in range(600):
        seen[np.arange(6), reader._orders.of(epoch)] += 1
    assert ((seen - 100) ** 2 / 100).sum() < 52.6, "would be more once in 1,000 seeds"


def text(number: int) -> bytes:
    """Record n has between 1 and 200 words, in no order."""
    return record(number, words=strings(*([b"w"] * (1 + number * 7919 % 200))))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("shuffle", [False, "local", "global"])
def test_records_of_similar_length_share_batches(tmp_path, workers, shuffle):
    pattern = write_shards(tmp_path, even(1000, 4), content=text)
    features = {**ID, "words": VariableLength("string", padding="")}

    def epoch(group_by_length: int) -> tuple[list[int], float, list[int]]:
        ids, padded, words, longest = [], 0, 0, []
        for worker in range(workers):
            for batch in read_tfrecords(
                pattern,
                features,
                batch_size=20,
                shuffle=shuffle,
                group_by_length=group_by_length,
                shard=ShardOptions(workers, worker),
            ):
                ids += batch["id"].numpy().tolist()
                padded += int(tf.size(batch["words"]))
                words += int(tf.math.count_nonzero(batch["words"] != ""))
                longest.append(batch["words"].shape[1])
        return ids, padded / words, longest

    ids, waste, longest = epoch(25)
    assert sorted(ids) == list(range(1000))
    # 20 of 500 records with 1 to 200 words, sorted, differ by 8 of about 100.
    assert waste < 1.15
    assert epoch(0)[1] > 1.6
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.5, "batches are in random order"


def test_rows_are_padded_to_the_longest_of_their_batch_whatever_is_parsed_with_them(tmp_path):
    """Of all features of varying length; 8 batches are one chunk."""
    pattern = write_shards(tmp_path, [32], content=lambda n: record(n, words=strings(*([b"w"] * (n // 4)))))
    features = {
        "padded": VariableLength("string"),
        "sparse": tf.io.VarLenFeature(tf.string),
        "dense": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
    }
    for name, feature in features.items():
        dataset = read_tfrecords(pattern, {"words": feature}, batch_size=4)
        assert [batch["words"].shape[1] for batch in dataset] == list(range(8)), name


def test_the_smaller_last_batch_stays_last_also_when_grouped(tmp_path):
    pattern = write_shards(tmp_path, [107], content=text)
    (steps,) = read_ids(pattern, batch_size=10, shuffle="global", group_by_length=3)
    assert [len(step) for step in steps] == [10] * 10 + [7]


@pytest.fixture
def sources(tmp_path):
    """A has 0..69, B 1000..1019, C 2000..2009: 100 records."""
    named = {"a": (70, 0), "b": (20, 1000), "c": (10, 2000)}
    return [write_shards(tmp_path, even(n, 2), name=name, first=first) for name, (n, first) in named.items()]


@pytest.mark.parametrize("shuffle", [False, "global"])
@pytest.mark.parametrize("weights", [(1, 1, 1), (5, 3, 2), (0.7, 0.1, 0.2), (1, 100, 1)])
def test_sources_have_their_proportions_in_every_beginning_of_an_epoch(sources, shuffle, weights):
    dataset = read_tfrecords(dict(zip(sources, weights, strict=True)), ID, batch_size=8, shuffle=shuffle)
    for _ in range(2):
        source_of = np.array(flat(ids_of(dataset))) // 1000
        assert len(source_of) == 100, "as many as all sources together"
        for source, weight in enumerate(weights):
            counts = np.cumsum(source_of == source)
            expected = weight / sum(weights) * np.arange(1, 101)
            assert np.abs(counts - expected).max() <= 1.0


@pytest.mark.parametrize("shuffle", [False, "global"])
def test_small_sources_are_repeated_and_epochs_go_on_where_the_last_one_stopped(sources, shuffle):
    """Weights 5, 3, 2 of 100: epochs take 50 of A's 70, 30 of B's 20, 20 of C's 10."""
    dataset = read_tfrecords(dict(zip(sources, (5, 3, 2), strict=True)), ID, batch_size=8, shuffle=shuffle)
    ids = np.array(flat(flat(ids_of(dataset) for _ in range(7))))
    for source, count in enumerate((70, 20, 10)):
        own = ids[ids // 1000 == source] - 1000 * source
        turns = [own[i : i + count] for i in range(0, len(own) - count + 1, count)]
        assert all(sorted(turn) == list(range(count)) for turn in turns), "each record once before any comes again"
        assert (len({tuple(turn) for turn in turns}) > 1) == bool(shuffle)


def test_mixed_workers_read_the_batches_of_one(sources):
    mixture = dict(zip(sources, (5, 3, 2), strict=True))
    (alone,) = read_ids(mixture, batch_size=9, shuffle="global")
    assert together(read_ids(mixture, batch_size=9, shuffle="global", workers=2)) == alone


def test_a_file_in_two_sources_counts_twice(tmp_path):
    pattern = write_shards(tmp_path, [5, 5])
    mixture = {pattern: 1, str(tmp_path / "part-00*"): 1}
    counts = Counter(flat(flat(read_ids(mixture, batch_size=5))))
    assert sum(counts.values()) == 15
