"""What `read_tfrecords` gives: batches, features, labels, and errors that say what to change."""

from __future__ import annotations

import pytest
import tensorflow as tf

import tfdist
from tests.helpers.tfrecords import ID, even, flat, ids_of, integers, read_ids, record, strings, together, write_shards
from tfdist.data import ShardOptions, read_tfrecords
from tfdist.errors import DataError

pytestmark = pytest.mark.unit

FEATURES = {**ID, "name": tf.io.FixedLenFeature([], tf.string), "tags": tf.io.RaggedFeature(tf.int64)}


def rich(number: int) -> bytes:
    return record(number, name=strings(b"row %d" % number), tags=integers(range(number % 3)))


def slices(rows: int, batch_size: int) -> list[list[int]]:
    return [list(range(i, min(i + batch_size, rows))) for i in range(0, rows, batch_size)]


def test_one_worker_reads_everything_in_the_order_of_the_files(tmp_path):
    pattern = write_shards(tmp_path, even(40, 3))
    assert read_ids(pattern, batch_size=7) == [slices(40, 7)]


@pytest.mark.parametrize("workers", [2, 3])
def test_with_sharding_batches_workers_together_read_what_one_reads_step_by_step(tmp_path, workers):
    pattern = write_shards(tmp_path, even(40, 5))
    assert together(read_ids(pattern, batch_size=7, workers=workers, sharding="batches")) == slices(40, 7)


def test_with_sharding_files_each_worker_reads_whole_files(tmp_path):
    pattern = write_shards(tmp_path, [10, 10, 10, 10])
    left, right = (set(flat(one)) for one in read_ids(pattern, batch_size=8, workers=2, sharding="files"))
    assert left == {*range(10), *range(20, 30)}
    assert right == {*range(10, 20), *range(30, 40)}


def test_with_sharding_records_each_worker_reads_a_run_of_records(tmp_path):
    pattern = write_shards(tmp_path, [10, 10, 10, 10])
    left, right = (flat(one) for one in read_ids(pattern, batch_size=8, workers=2, sharding="records"))
    assert (left, right) == ([*range(20)], [*range(20, 40)])


def test_auto_takes_whole_files_only_where_all_workers_then_make_the_same_steps(tmp_path):
    balanced = write_shards(tmp_path, [16, 16], name="balanced")
    lopsided = write_shards(tmp_path, [4, 28], name="lopsided")
    assert read_ids(balanced, batch_size=8, workers=2) == read_ids(balanced, batch_size=8, workers=2, sharding="files")
    assert read_ids(lopsided, batch_size=8, workers=2) == read_ids(
        lopsided, batch_size=8, workers=2, sharding="records"
    )
    with pytest.raises(ValueError, match=r"share evenly. Received: 2 files of 4 to 28 records.*sharding='auto'"):
        read_ids(lopsided, batch_size=8, workers=2, sharding="files")


def test_in_a_batch_of_fewer_rows_than_workers_some_get_a_batch_without_rows(tmp_path):
    pattern = write_shards(tmp_path, [5])
    assert read_ids(pattern, batch_size=4, workers=2, sharding="batches") == [[[0, 1], []], [[2, 3], [4]]]


def test_all_kinds_of_features_and_a_label(tmp_path):
    pattern = write_shards(tmp_path, [2, 3], content=rich)
    shard = ShardOptions(2, 1)
    dataset = read_tfrecords(pattern, FEATURES, batch_size=4, label="id", shard=shard, sharding="batches")
    (features, label), (last, last_label) = list(dataset)
    assert set(features) == {"name", "tags"}
    assert label.numpy().tolist() == [2, 3]
    assert features["name"].numpy().tolist() == [b"row 2", b"row 3"]
    assert features["tags"].to_list() == [[0, 1], []]
    assert last_label.numpy().tolist() == [4]
    assert last["tags"].to_list() == [[0]]


def test_a_batch_without_rows_has_all_its_features(tmp_path):
    pattern = write_shards(tmp_path, [1], content=rich)
    dataset = read_tfrecords(pattern, FEATURES, batch_size=4, label="id", shard=ShardOptions(2, 0), sharding="batches")
    ((features, label),) = list(dataset)
    assert label.shape == (0,)
    assert features["name"].shape == (0,)
    assert features["tags"].nrows() == 0


def test_the_features_of_the_index_are_read_by_default(tmp_path):
    features = {"x": tfdist.data.Tensor((2,), "float32"), "y": tfdist.data.Tensor((), "int64")}
    with tfdist.data.TFRecordWriter(tmp_path / "train-*.tfrecord", features, num_shards=2) as writer:
        for i in range(4):
            writer.write(x=[i, i + 0.5], y=i)
    ((batch, label),) = list(read_tfrecords(tmp_path / "train-*.tfrecord", batch_size=4, label="y"))
    rows = dict(zip(label.numpy().tolist(), batch["x"].numpy().tolist(), strict=True))
    assert rows == {i: [i, i + 0.5] for i in range(4)}
    with pytest.raises(DataError, match=r"\['x', 'y'\]. Received: \['z'\]"):
        read_tfrecords(tmp_path / "train-*", {"z": features["y"]}, batch_size=4)


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("shuffle", [False, "local", "global"])
def test_compressed_files_are_read_as_others(tmp_path, compression, indexed, shuffle):
    pattern = write_shards(tmp_path, [9, 0, 12], compression=compression, indexed=indexed)
    options = {"batch_size": 4, "workers": 2, "shuffle": shuffle}
    assert sorted(flat(together(read_ids(pattern, **options)))) == list(range(21))
    assert read_ids(pattern, **options) == read_ids(pattern, compression=compression, **options)


@pytest.mark.parametrize("workers, policy", [(1, "AUTO"), (2, "OFF")])
def test_a_share_is_marked_as_one_for_the_strategy(tmp_path, workers, policy):
    pattern = write_shards(tmp_path, [4])
    dataset = read_tfrecords(pattern, ID, batch_size=2, shard=ShardOptions(workers, 0))
    dataset = dataset.map(lambda batch: batch)
    assert dataset.options().experimental_distribute.auto_shard_policy.name == policy


def test_several_patterns_are_read_in_the_order_of_names_each_file_once(tmp_path):
    write_shards(tmp_path, [2, 2, 2])
    paths = [tmp_path / "part-02.tfrecord", str(tmp_path / "part-0[12].tfrecord")]
    assert read_ids(paths, batch_size=10) == [[[2, 3, 4, 5]]]


def test_files_of_a_remote_file_system_are_read_as_others():
    """TensorFlow's file system in memory, which only tf.io.gfile knows, as it is with buckets."""
    pattern = write_shards("ram://reader", [5, 6], indexed=True)
    for shuffle in (False, "local", "global"):
        assert sorted(flat(together(read_ids(pattern, batch_size=4, workers=2, shuffle=shuffle)))) == list(range(11))


def test_one_pass_is_an_epoch_and_the_next_pass_the_next(tmp_path):
    pattern = write_shards(tmp_path, [20])
    dataset = read_tfrecords(pattern, ID, batch_size=8, shuffle=True)
    assert len(dataset) == 3
    first, second = ids_of(dataset), ids_of(dataset)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(20))
    assert first != second


@pytest.mark.parametrize("pattern", ["absent-*.tfrecord", ["absent"], []])
def test_no_file_is_an_error_that_shows_the_pattern(pattern):
    with pytest.raises(FileNotFoundError, match=r"must .*Received: pattern="):
        read_tfrecords(pattern, ID, batch_size=2)


def test_files_without_records_are_an_error(tmp_path):
    with pytest.raises(DataError, match=r"At least one record is needed. Received: 2 files without any"):
        read_tfrecords(write_shards(tmp_path, [0, 0]), ID, batch_size=2)


def test_fewer_records_than_a_full_batch_are_an_error_with_drop_remainder(tmp_path):
    with pytest.raises(DataError, match=r"one batch. Received: 3 records, batch_size=4"):
        read_tfrecords(write_shards(tmp_path, [3]), ID, batch_size=4, drop_remainder=True)


@pytest.mark.parametrize(
    "options, error, message",
    [
        (
            {"batch_size": 2, "shard": ShardOptions(3, 0)},
            ValueError,
            "their number, 3. Received: batch_size=2",
        ),
        ({"batch_size": 0}, ValueError, "Received: batch_size=0"),
        ({"batch_size": 2.5}, TypeError, r"Received: batch_size=2\.5"),
        ({"batch_size": True}, TypeError, "Received: batch_size=True"),
        ({"label": "lable"}, ValueError, "Received: label='lable'"),
        ({"shuffle": "all"}, ValueError, "Received: shuffle='all'"),
        ({"shuffle": 0}, ValueError, "Received: shuffle=0"),
        ({"shuffle_buffer": 0}, ValueError, "Received: shuffle_buffer=0"),
        ({"seed": "x"}, TypeError, "Received: seed='x'"),
        ({"group_by_length": -1}, ValueError, "Received: group_by_length=-1"),
        ({"sharding": "rows"}, ValueError, "Received: sharding='rows'"),
        ({"sharding": "files", "shuffle": "global"}, ValueError, "Received: sharding='files'.*shuffle='local'"),
        ({"on_corrupt": "ignore"}, ValueError, "Received: on_corrupt='ignore'"),
        ({"max_skipped": -1}, ValueError, "Received: max_skipped=-1"),
        ({"compression": "LZ4"}, ValueError, "Received: compression='LZ4'"),
        ({"features": None}, ValueError, "files without an index. Received: features=None"),
        ({"features": {"id": int}}, TypeError, "Received: id=<class 'int'>"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, options, error, message):
    pattern = write_shards(tmp_path, [4])
    with pytest.raises(error, match=message):
        read_tfrecords(pattern, **{"features": ID, "batch_size": 4, **options})


@pytest.mark.parametrize(
    "weights, options", [((1, 0), {}), ((1, -1), {}), ((1, 1), {"shuffle": "local"}), ((1, 1), {"sharding": "files"})]
)
def test_wrong_mixtures_are_refused(tmp_path, weights, options):
    patterns = [write_shards(tmp_path, [4], name=name) for name in "ab"]
    with pytest.raises(ValueError, match="Mixed sources need weights above 0"):
        read_tfrecords(dict(zip(patterns, weights, strict=True)), ID, batch_size=4, **options)
