"""Shards and their index appear together and whole, or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from tfdist.data import Image, String, Tensor, TFRecordWriter, VariableLength
from tfdist.data.files.index import DatasetIndex

pytestmark = pytest.mark.unit

IDS = {"id": Tensor((), "int64")}


def write(pattern, count: int, features=IDS, **options) -> TFRecordWriter:
    with TFRecordWriter(pattern, features, **options) as writer:
        for i in range(count):
            writer.write(id=i)
    return writer


def ids(folder, compression: str = "") -> dict[str, list[int]]:
    """Of each file that readers would take."""
    found = {}
    for path in sorted(folder.glob("*.tfrecord")):
        records = tf.data.TFRecordDataset(str(path), compression).map(
            lambda record: tf.io.parse_single_example(record, IDS["id"].parsing("id"))["id"]
        )
        found[path.name] = [int(each) for each in records]
    return found


def everything(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("count, shards", [(0, 1), (0, 3), (1, 3), (7, 3), (200, 3), (5, 1)])
def test_without_a_number_of_records_they_are_dealt_in_turn(tmp_path, count, shards):
    write(tmp_path / "x-*.tfrecord", count, num_shards=shards)
    expected = {f"x-{s:05d}-of-{shards:05d}.tfrecord": list(range(s, count, shards)) for s in range(shards)}
    assert ids(tmp_path) == expected
    assert everything(tmp_path) == [*expected, "x.tfdist-index"]


@pytest.mark.parametrize("count, shards", [(0, 2), (1, 3), (2, 5), (7, 3), (200, 3), (5, 1)])
@pytest.mark.parametrize("threads", [1, 2])
def test_with_it_each_shard_has_a_contiguous_part(tmp_path, count, shards, threads):
    write(tmp_path / "x-*.tfrecord", count, num_shards=shards, num_records=count, num_threads=threads)
    bounds = [count * s // shards for s in range(shards + 1)]
    assert list(ids(tmp_path).values()) == [list(range(bounds[s], bounds[s + 1])) for s in range(shards)]


@pytest.mark.parametrize("compression", [None, "GZIP", "ZLIB"])
def test_the_index_describes_the_files_as_they_are(tmp_path, compression):
    writer = write(tmp_path / "x-*.tfrecord", 10, num_shards=2, compression=compression)
    assert list(ids(tmp_path, compression or "").values()) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    index = DatasetIndex.load(str(tmp_path / "x.tfdist-index"))
    assert (index.num_records, index.compression) == (10, compression or "")
    assert index.features == {"id": {"kind": "tensor", "shape": [], "dtype": "int64"}}
    for shard, own in zip(index.shards, writer.index.shards, strict=True):
        assert shard.size_bytes == (tmp_path / shard.name).stat().st_size
        assert (shard.name, shard.crc32c) == (own.name, own.crc32c)
        assert shard.num_records == 5


def test_without_a_star_the_number_comes_behind_the_name(tmp_path):
    write(str(tmp_path / "a" / "train"), 2, num_shards=2)
    assert list(ids(tmp_path / "a")) == ["train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord"]


def test_images_are_encoded_in_threads_in_order_and_as_they_were_at_the_call(tmp_path):
    features = {"id": Tensor((), "int64"), "image": Image((2, 2, 1)), "name": String()}
    buffer = np.zeros((2, 2, 1), np.uint8)
    with TFRecordWriter(tmp_path / "x-*.tfrecord", features, num_shards=2) as writer:
        for i in range(200):
            buffer[:] = i
            writer.write(id=i, image=buffer, name=str(i))
    parsing = {key: each for name, feature in features.items() for key, each in feature.parsing(name).items()}
    for shard, path in enumerate(sorted(tmp_path.glob("*.tfrecord"))):
        parsed = tf.io.parse_example(list(tf.data.TFRecordDataset(str(path))), parsing)
        images = features["image"].finish("image", parsed)
        assert images[:, 0, 0, 0].numpy().tolist() == parsed["id"].numpy().tolist() == list(range(shard, 200, 2))


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), TFRecordWriter(tmp_path / "x-*.tfrecord", IDS, num_shards=2) as writer:
        for i in range(500):
            writer.write(id=i)
        raise ZeroDivisionError
    assert everything(tmp_path) == []
    with pytest.raises(ValueError, match="writer must be open"):
        writer.write(id=1)
    writer.close()
    assert everything(tmp_path) == []


def test_a_wrong_record_is_reported_by_its_own_call_and_can_be_left_out(tmp_path):
    features = {"id": Tensor((), "int64"), "image": Image((2, 2, 1))}
    image = np.zeros((2, 2, 1), np.uint8)
    with TFRecordWriter(tmp_path / "x-*.tfrecord", features, num_shards=2) as writer:
        writer.write(id=0, image=image)
        for record, said in [
            ({"id": "a", "image": image}, "Feature 'id' must be int64"),
            ({"id": 1, "image": image[0]}, "Feature 'image' must have shape"),
            ({"id": 1}, "a record without image"),
            ({"id": 1, "image": image, "lable": 2}, "Received: lable=... Leave it out"),
            ({"id": 1, "imgae": image}, "Did you mean image?"),
        ]:
            with pytest.raises((TypeError, ValueError), match=said.replace("?", r"\?")):
                writer.write(**record)
        writer.write(id=1, image=image)
    assert list(ids(tmp_path).values()) == [[0], [1]]


def test_another_number_of_records_than_was_said(tmp_path):
    with pytest.raises(ValueError, match=r"num_records=3 says. Received: 2 records"):
        write(tmp_path / "x-*.tfrecord", 2, num_shards=2, num_records=3)
    with pytest.raises(ValueError, match=r"At most num_records=3 records"):
        write(tmp_path / "x-*.tfrecord", 4, num_shards=2, num_records=3)
    assert everything(tmp_path) == []


def test_shards_that_are_there_are_kept(tmp_path):
    write(tmp_path / "x-*.tfrecord", 4, num_shards=2)
    before = ids(tmp_path)
    with pytest.raises(FileExistsError, match=r"2 files, the first is .*x-00000-of-00002.tfrecord.*overwrite=True"):
        write(tmp_path / "x-*.tfrecord", 1, num_shards=3)
    with (
        pytest.raises(ZeroDivisionError),
        TFRecordWriter(tmp_path / "x-*.tfrecord", IDS, num_shards=3, overwrite=True) as writer,
    ):
        writer.write(id=9)
        raise ZeroDivisionError
    assert ids(tmp_path) == before
    assert everything(tmp_path) == [*before, "x.tfdist-index"]


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_overwriting_replaces_shards_of_another_count_and_their_index(tmp_path, shards):
    write(tmp_path / "x-*.tfrecord", 4, num_shards=2)
    (tmp_path / "x-notes.tfrecord").write_bytes(b"")
    (tmp_path / "xy-00000-of-00001.tfrecord").write_bytes(b"")
    write(tmp_path / "x-*.tfrecord", 1, num_shards=shards, overwrite=True)
    others = ["x-notes.tfrecord", "xy-00000-of-00001.tfrecord"]
    new = [f"x-{s:05d}-of-{shards:05d}.tfrecord" for s in range(shards)]
    assert everything(tmp_path) == sorted([*others, *new, "x.tfdist-index"])
    assert [shard.name for shard in DatasetIndex.load(str(tmp_path / "x.tfdist-index")).shards] == new


def test_shards_that_appear_meanwhile_are_kept(tmp_path):
    with pytest.raises(FileExistsError), TFRecordWriter(tmp_path / "x-*.tfrecord", IDS, num_shards=2) as slow:
        slow.write(id=1)
        write(tmp_path / "x-*.tfrecord", 3, num_shards=1)
    assert ids(tmp_path) == {"x-00000-of-00001.tfrecord": [0, 1, 2]}
    assert everything(tmp_path) == ["x-00000-of-00001.tfrecord", "x.tfdist-index"]


def test_the_index_of_other_files_is_not_replaced(tmp_path):
    write(tmp_path / "x-*.tfrecord", 1, num_shards=1)
    with pytest.raises(ValueError, match=r"that of 1 other files, the first is x-00000-of-00001.tfrecord"):
        write(tmp_path / "x_*.tfrecord", 1, num_shards=1)


KILLED = """
    import sys
    from tfdist.data import TFRecordWriter, VariableLength

    with TFRecordWriter(sys.argv[1], {"x": VariableLength("int64")}, num_shards=2) as writer:
        for i in range(2000):
            writer.write(x=range(100))
        print("written", flush=True)
        sys.stdin.readline()
"""


def killed_writer(pattern: str) -> subprocess.Popen:
    script = [sys.executable, "-c", textwrap.dedent(KILLED), pattern]
    process = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    return process


def test_a_killed_writer_leaves_nothing_that_readers_take_and_the_next_one_removes_it(tmp_path, caplog):
    pattern = str(tmp_path / "x-*.tfrecord")
    with killed_writer(pattern) as process:
        alive = everything(tmp_path)
        assert [name for name in alive if name.endswith(".part")], "it was about to write"
        write(pattern, 2, num_shards=2)  # beside a writer that lives
        assert set(alive) <= set(everything(tmp_path)), "its files are its own"
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(tmp_path.rglob("*.tfrecord")) == sorted(tmp_path.glob("x-*-of-00002.tfrecord"))
    write(str(tmp_path / "y-*.tfrecord"), 1, num_shards=1)
    assert set(alive) <= set(everything(tmp_path)), "another pattern's writer leaves it"
    write(pattern, 3, num_shards=1, overwrite=True)
    assert everything(tmp_path) == [
        *("x-00000-of-00001.tfrecord", "x.tfdist-index"),
        *("y-00000-of-00001.tfrecord", "y.tfdist-index"),
    ]
    assert "which a writer left that was killed" in caplog.text


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("num_records", [60, 40_000])
def test_a_full_disk_is_said_and_leaves_nothing(small_disk, num_records):
    """At the end, or long before."""
    features = {"x": VariableLength("string")}
    with (
        pytest.raises(OSError, match=r"No space left.*Free space or write elsewhere") as caught,
        TFRecordWriter(small_disk / "x-*.tfrecord", features, num_shards=2) as writer,
    ):
        for _ in range(num_records):
            writer.write(x=[os.urandom(20_000)])
    assert caught.value.errno == errno.ENOSPC
    assert everything(small_disk) == []


def test_a_disk_that_is_full_only_for_the_index(tmp_path, small_disk):
    write(tmp_path / "x-*.tfrecord", 1000, num_shards=1)
    pages = -(-(tmp_path / "x-00000-of-00001.tfrecord").stat().st_size // 4096)
    (small_disk / "filler").write_bytes(bytes((256 - pages) * 4096))
    with pytest.raises(OSError, match=r"x\.tfdist-index.*No space left"):
        write(small_disk / "x-*.tfrecord", 1000, num_shards=1)
    assert everything(small_disk) == ["filler"]


def test_a_place_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"can't be written: .*Received: pattern="):
        write(tmp_path / "file" / "x-*.tfrecord", 1, num_shards=1)


def test_remote_paths(tmp_path):
    """TensorFlow's file system in memory stands for those that the operating system doesn't know."""
    write("ram://data/x-*.tfrecord", 4, num_shards=2)
    assert sorted(tf.io.gfile.listdir("ram://data/")) == [
        *("x-00000-of-00002.tfrecord", "x-00001-of-00002.tfrecord"),
        "x.tfdist-index",
    ]
    with pytest.raises(FileExistsError):
        write("ram://data/x-*.tfrecord", 4, num_shards=2)


@pytest.mark.parametrize(
    "pattern, options, error, said",
    [
        ("x-*-*", {}, ValueError, "at most one *"),
        ("x-?", {}, ValueError, "at most one *"),
        ("d*/x", {}, ValueError, "at most one *"),
        ("d/", {}, ValueError, "at most one *"),
        (3, {}, TypeError, "Received: pattern=3"),
        ("x", {"num_shards": 0}, ValueError, "Received: num_shards=0"),
        ("x", {"num_shards": "2"}, TypeError, "Received: num_shards='2'"),
        ("x", {"num_records": -1}, ValueError, "Received: num_records=-1"),
        ("x", {"num_threads": 0}, ValueError, "Received: num_threads=0"),
        ("x", {"compression": "gzip"}, ValueError, "Received: compression='gzip'"),
        ("x", {"features": {"id": int}}, TypeError, "must be one of tfdist.data.Tensor"),
    ],
)
def test_wrong_options_are_refused(tmp_path, monkeypatch, pattern, options, error, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        write(pattern, 0, **{"num_shards": 1, **options})
    assert said in str(caught.value)
    assert everything(tmp_path) == []


def test_a_bar_is_shown_if_asked_for(tmp_path, capfd):
    write(tmp_path / "x-*.tfrecord", 350, num_shards=2, num_records=350, progress=True)
    assert "350/350" in capfd.readouterr().err
    write(tmp_path / "x-*.tfrecord", 350, num_shards=2, overwrite=True)
    assert "350" not in capfd.readouterr().err
