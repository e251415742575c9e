"""TFRecord files shared among workers: each row once, the same global batches for any number."""

from __future__ import annotations

import itertools

import pytest
import tensorflow as tf

from tfdist.data import ShardOptions, read_tfrecords

pytestmark = pytest.mark.unit

FEATURES = {
    "id": tf.io.FixedLenFeature([], tf.int64),
    "name": tf.io.FixedLenFeature([], tf.string),
    "tags": tf.io.RaggedFeature(tf.int64),
}


def example(index: int) -> bytes:
    feature = {
        "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[index])),
        "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"row %d" % index])),
        "tags": tf.train.Feature(int64_list=tf.train.Int64List(value=range(index % 3))),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def write_files(folder, num_files: int, num_records: int) -> str:
    """Records 0, 1, 2, ... dealt to the files in order; some files get none."""
    for k in range(num_files):
        first, end = num_records * k // num_files, num_records * (k + 1) // num_files
        with tf.io.TFRecordWriter(str(folder / f"part-{k:02d}.tfrecord")) as writer:
            for index in range(first, end):
                writer.write(example(index))
    return str(folder / "part-*.tfrecord")


def batches_of(pattern: str, *, batch_size: int, workers: int, **kwargs) -> list[list[list[int]]]:
    """Ids by worker and step."""
    return [
        [
            batch["id"].numpy().tolist()
            for batch in read_tfrecords(
                pattern,
                {"id": FEATURES["id"]},
                batch_size=batch_size,
                shard=ShardOptions(workers, index),
                **kwargs,
            )
        ]
        for index in range(workers)
    ]


@pytest.mark.parametrize("num_files", [1, 2, 3, 4, 5])
def test_workers_together_read_what_one_worker_reads_step_by_step(tmp_path, num_files):
    for num_records in (0, 1, 7, 40):
        pattern = write_files(tmp_path, num_files, num_records)
        for batch_size, workers in itertools.product((4, 7), (1, 2, 3)):
            per_worker = batches_of(pattern, batch_size=batch_size, workers=workers)
            steps = {len(batches) for batches in per_worker}
            assert steps == {-(-num_records // batch_size)}, "same number of steps on all workers"
            together = [list(itertools.chain(*step)) for step in zip(*per_worker, strict=True)]
            rows = list(range(num_records))
            expected = [rows[i : i + batch_size] for i in range(0, num_records, batch_size)]
            assert together == expected


def test_in_a_batch_of_fewer_rows_than_workers_some_get_a_batch_without_rows(tmp_path):
    pattern = write_files(tmp_path, 1, 5)
    assert batches_of(pattern, batch_size=4, workers=2) == [[[0, 1], []], [[2, 3], [4]]]


def test_shuffling_gives_each_row_once_an_epoch_in_an_order_that_all_workers_share(tmp_path):
    pattern = write_files(tmp_path, 3, 40)

    def epochs(shard: ShardOptions) -> list[list[list[int]]]:
        features = {"id": FEATURES["id"]}
        dataset = read_tfrecords(pattern, features, batch_size=8, shuffle=True, seed=5, shard=shard)
        return [[batch["id"].numpy().tolist() for batch in dataset] for _ in range(2)]

    alone = epochs(ShardOptions())
    for epoch in alone:
        assert sorted(itertools.chain(*epoch)) == list(range(40))
    assert alone[0] != alone[1], "shuffled anew each epoch"
    assert alone[0] != [list(range(i, i + 8)) for i in range(0, 40, 8)]
    left, right = epochs(ShardOptions(2, 0)), epochs(ShardOptions(2, 1))
    joined = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(left, right, strict=True)]
    assert joined == alone


def test_another_seed_gives_another_order_and_the_same_seed_the_same(tmp_path):
    pattern = write_files(tmp_path, 1, 40)
    orders = [batches_of(pattern, batch_size=40, workers=1, shuffle=True, seed=seed) for seed in (1, 2, 1)]
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]


def test_all_kinds_of_features_and_a_label(tmp_path):
    pattern = write_files(tmp_path, 2, 5)
    dataset = read_tfrecords(pattern, FEATURES, batch_size=4, label="id", shard=ShardOptions(2, 1))
    (features, label), (last, last_label) = list(dataset)
    assert last_label.numpy().tolist() == [4]
    assert last["tags"].to_list() == [[0]]
    assert label.numpy().tolist() == [2, 3]
    assert features["name"].numpy().tolist() == [b"row 2", b"row 3"]
    assert features["tags"].to_list() == [[0, 1], []]


def test_a_batch_without_rows_has_all_its_features(tmp_path):
    pattern = write_files(tmp_path, 1, 1)
    dataset = read_tfrecords(pattern, FEATURES, batch_size=4, label="id", shard=ShardOptions(2, 0))
    ((features, label),) = list(dataset)
    assert label.shape == (0,)
    assert features["name"].shape == (0,)
    assert features["tags"].nrows() == 0


@pytest.mark.parametrize("workers, policy", [(1, "AUTO"), (2, "OFF")])
def test_a_share_is_marked_as_one_for_the_strategy(tmp_path, workers, policy):
    pattern = write_files(tmp_path, 1, 4)
    dataset = read_tfrecords(pattern, FEATURES, batch_size=2, shard=ShardOptions(workers, 0))
    dataset = dataset.map(lambda batch: batch)
    assert dataset.options().experimental_distribute.auto_shard_policy.name == policy


def test_several_patterns_are_read_in_the_order_of_names_each_file_once(tmp_path):
    write_files(tmp_path, 3, 6)
    paths = [tmp_path / "part-02.tfrecord", str(tmp_path / "part-0[12].tfrecord")]
    (ids,) = batches_of(paths, batch_size=10, workers=1)
    assert ids == [[2, 3, 4, 5]]


@pytest.mark.parametrize("pattern", ["absent-*.tfrecord", ["absent"], []])
def test_no_file_is_an_error_that_shows_the_pattern(pattern):
    with pytest.raises(FileNotFoundError, match=r"must .*Received: pattern="):
        read_tfrecords(pattern, FEATURES, batch_size=2)


def test_wrong_arguments_are_refused(tmp_path):
    pattern = write_files(tmp_path, 1, 4)
    with pytest.raises(ValueError, match=r"at least their number, 3. Received: batch_size=2"):
        read_tfrecords(pattern, FEATURES, batch_size=2, shard=ShardOptions(3, 0))
    with pytest.raises(ValueError, match="Received: batch_size=0"):
        read_tfrecords(pattern, FEATURES, batch_size=0)
    with pytest.raises(TypeError, match=r"Received: batch_size=2\.5"):
        read_tfrecords(pattern, FEATURES, batch_size=2.5)
    with pytest.raises(ValueError, match="Received: label='lable'"):
        read_tfrecords(pattern, FEATURES, batch_size=2, label="lable")
