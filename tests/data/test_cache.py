"""cache="memory" and cache=DIRECTORY: read once, kept whole, shared by processes, made anew when files change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

import tfdist.data.reading.access
from tests.helpers.tfrecords import ID, even, flat, ids_of, record, strings, write_shards
from tfdist.data import ShardOptions, read_tfrecords
from tfdist.data.reading.reader_calls import take_error
from tfdist.errors import DataError

ROOT = Path(__file__).parents[2]


def big(number: int) -> bytes:
    return record(number, filler=strings(b"%d" % number * 100))


def copies(cache: Path) -> dict[str, tuple[int, int]]:
    """Node and time of each file in a cache, by the name of the original."""
    return {path.name.split("-", 1)[1]: (path.stat().st_ino, path.stat().st_mtime_ns) for path in cache.iterdir()}


@pytest.mark.unit
@pytest.mark.parametrize("shuffle", [False, "local", "global"])
def test_in_memory_files_are_read_once(tmp_path, shuffle, monkeypatch):
    """What the second epoch reads isn't in the files any more: only their times are what they were."""
    monkeypatch.setattr(tfdist.data.reading.access, "_SMALL_BYTES", 0)
    pattern = write_shards(tmp_path, [40, 40])
    dataset = read_tfrecords(pattern, ID, batch_size=8, shuffle=shuffle, cache="memory")
    assert sorted(flat(ids_of(dataset))) == list(range(80))
    for path in tmp_path.glob("part-*"):
        stat = path.stat()
        path.write_bytes(b"\0" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sorted(flat(ids_of(dataset))) == list(range(80))
    with pytest.raises(DataError, match="record 0"):
        read_tfrecords(pattern, ID, batch_size=8, shuffle=shuffle, cache="memory")


@pytest.mark.unit
@pytest.mark.parametrize("compression", ["", "GZIP"])
@pytest.mark.parametrize("shuffle", [False, "local", "global"])
def test_a_directory_gets_uncompressed_copies_that_the_next_run_reuses(tmp_path, compression, shuffle, monkeypatch):
    monkeypatch.setattr(tfdist.data.reading.access, "_SMALL_BYTES", 0)
    pattern = write_shards(tmp_path, [20, 20], compression=compression, content=big)
    cache = tmp_path / "cache" / "deep"

    def read() -> list[int]:
        return flat(ids_of(read_tfrecords(pattern, ID, batch_size=8, shuffle=shuffle, cache=cache)))

    first, made = read(), copies(cache)
    assert sorted(made) == ["part-00.tfrecord", "part-01.tfrecord"]
    assert read() == first, "the same order"
    assert copies(cache) == made, "the same files"
    for path in cache.iterdir():
        numbers = [tf.train.Example.FromString(one.numpy()) for one in tf.data.TFRecordDataset(str(path))]
        assert len(numbers) == 20


@pytest.mark.unit
def test_a_file_that_was_changed_is_copied_anew(tmp_path):
    pattern, cache = write_shards(tmp_path, [20, 20]), tmp_path / "cache"
    assert flat(ids_of(read_tfrecords(pattern, ID, batch_size=8, cache=cache))) == list(range(40))
    before = {path.name for path in cache.iterdir()}
    write_shards(tmp_path, [20], first=100)
    assert flat(ids_of(read_tfrecords(pattern, ID, batch_size=8, cache=cache))) == [*range(100, 120), *range(20, 40)]
    added = {path.name for path in cache.iterdir()} - before
    assert [name.split("-", 1)[1] for name in added] == ["part-00.tfrecord"]


@pytest.mark.unit
def test_a_worker_copies_only_the_files_that_it_reads(tmp_path):
    pattern = write_shards(tmp_path, [8, 8, 8, 8])
    for worker in range(2):
        shard = ShardOptions(2, worker)
        dataset = read_tfrecords(pattern, ID, batch_size=8, cache=tmp_path / str(worker), sharding="files", shard=shard)
        ids_of(dataset)
    assert sorted(copies(tmp_path / "0")) == ["part-00.tfrecord", "part-02.tfrecord"]
    assert sorted(copies(tmp_path / "1")) == ["part-01.tfrecord", "part-03.tfrecord"]


@pytest.mark.unit
@pytest.mark.parametrize("shuffle", [False, "global"])
def test_remote_files_are_copied_and_then_not_asked_for(tmp_path, shuffle, monkeypatch):
    monkeypatch.setattr(tfdist.data.reading.access, "_SMALL_BYTES", 0)
    pattern = write_shards("ram://cache", even(50, 3))
    dataset = read_tfrecords(pattern, ID, batch_size=8, shuffle=shuffle, cache=tmp_path)
    assert sorted(flat(ids_of(dataset))) == list(range(50))
    assert len(copies(tmp_path)) == 3
    for path in tf.io.gfile.glob(pattern):
        tf.io.gfile.remove(path)
    assert sorted(flat(ids_of(dataset))) == list(range(50))


@pytest.mark.unit
def test_a_copy_that_can_not_be_made_is_an_error(tmp_path):
    """A file stands where the directory was."""
    pattern, cache = write_shards(tmp_path, [20]), tmp_path / "cache"
    dataset = read_tfrecords(pattern, ID, batch_size=8, cache=cache)
    cache.rmdir()
    cache.write_text("no directory")
    with pytest.raises(tf.errors.OpError, match="The cache must have room for a copy of each file"):
        ids_of(dataset)
    assert isinstance(take_error(), DataError)
    assert cache.read_text() == "no directory"


@pytest.mark.unit
@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_large_compressed_files_in_random_order_need_a_cache(tmp_path, compression, monkeypatch):
    monkeypatch.setattr(tfdist.data.reading.access, "_SMALL_BYTES", 0)
    pattern = write_shards(tmp_path, [20, 20], compression=compression)
    with pytest.raises(DataError, match=r"can't be read at random.*shuffle='local', cache='memory', or cache="):
        read_tfrecords(pattern, ID, batch_size=8, shuffle="global")
    for options in ({"shuffle": "local"}, {"shuffle": "global", "cache": "memory"}, {"shuffle": False}):
        assert sorted(flat(ids_of(read_tfrecords(pattern, ID, batch_size=8, **options)))) == list(range(40)), options


READ = """
import pathlib, sys, time
from tests.helpers.tfrecords import ID, ids_of
from tfdist.data import read_tfrecords
pattern, cache, ready, start = sys.argv[1:]
dataset = read_tfrecords(pattern, ID, batch_size=64, cache=cache)
pathlib.Path(ready).touch()
while not pathlib.Path(start).exists():
    time.sleep(0.001)
print(sum(map(sum, ids_of(dataset))))
"""


@pytest.mark.cluster
def test_two_processes_make_the_copies_at_the_same_time(tmp_path, wait_until):
    (tmp_path / "data").mkdir()
    pattern = write_shards(tmp_path / "data", [2000] * 4, compression="GZIP", content=big)
    cache, start = tmp_path / "cache", tmp_path / "start"
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", READ, pattern, str(cache), str(tmp_path / f"ready{i}"), str(start)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        wait_until(lambda: all((tmp_path / f"ready{i}").exists() for i in range(2)), 120)
        start.touch()
        sums = [int(task.communicate(timeout=120)[0]) for task in tasks]
    finally:
        for task in tasks:
            task.kill()
            task.wait()
    assert sums == [sum(range(8000))] * 2
    assert sorted(copies(cache)) == [f"part-{i:02d}.tfrecord" for i in range(4)], "one copy each, no parts"
