"""Broken files: errors that name file, record and byte; or exactly the broken records left out, and counted."""

from __future__ import annotations

import gzip
import logging
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfdist.data.reading.access
from tests.helpers.tfrecords import ID, flat, ids_of, integers, record, strings, write_index, write_shards
from tfdist.data import VariableLength, read_tfrecords
from tfdist.data.files.framing import records_of
from tfdist.data.reading.reader_calls import readers_of, take_error
from tfdist.errors import CorruptRecordError, DataError

pytestmark = pytest.mark.unit

# Each of the ways that bytes take from files to records: (shuffle, whether the data counts as small).
PATHS = {
    "runs": (False, True),
    "memory": ("global", True),
    "blocks": ("local", False),
    "pread": ("global", False),
}
# Where a byte of record 17, the 8th of the second file, is flipped, from its first one on; -1 is its last.
FLIPS = {"length": 0, "length's checksum": 8, "data": 14, "data's checksum": -1}
RECORD, FILE, NUMBER = 17, "part-01.tfrecord", 7


@pytest.fixture(params=list(PATHS))
def shuffle(request, monkeypatch):
    mode, is_small = PATHS[request.param]
    if not is_small:
        monkeypatch.setattr(tfdist.data.reading.access, "_SMALL_BYTES", 0)
    return mode


@pytest.fixture(autouse=True)
def no_error_of_before():
    take_error()


def write(folder: Path, **options: Any) -> str:
    """30 records in three files."""
    return write_shards(folder, [10, 10, 10], **options)


def offset_of(path: Path, number: int) -> int:
    return int(records_of(str(path), path.read_bytes())[number])


def flip(path: Path, place: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)


def flip_in_record(path: Path, number: int, place: int) -> int:
    """Flips a bit; returns the record's first byte."""
    offsets = records_of(str(path), path.read_bytes())
    flip(path, int(offsets[number + 1] + place if place < 0 else offsets[number] + place))
    return int(offsets[number])


def error_of(dataset: tf.data.Dataset) -> str:
    """What the user sees, which must hold the text of our own error."""
    with pytest.raises(tf.errors.OpError) as raised:
        ids_of(dataset)
    ours = take_error()
    assert isinstance(ours, DataError)
    assert str(ours) in raised.value.message
    return str(ours)


def skipped(dataset: tf.data.Dataset) -> int:
    return readers_of(dataset)[0].skipped.count


@pytest.mark.parametrize("place", FLIPS.values(), ids=FLIPS)
def test_a_flipped_bit_is_an_error_that_names_file_record_and_byte(tmp_path, shuffle, place):
    pattern = write(tmp_path, indexed=True)
    offset = flip_in_record(tmp_path / FILE, NUMBER, place)
    message = error_of(read_tfrecords(pattern, ID, batch_size=4, shuffle=shuffle))
    assert f"{tmp_path / FILE}: record {NUMBER} at byte {offset}: its " in message
    assert "Restore the file, or read with on_corrupt='skip'" in message
    assert ("length" if place in (0, 8) else "checksum") in message


@pytest.mark.parametrize("place", FLIPS.values(), ids=FLIPS)
def test_with_skip_exactly_the_broken_record_is_left_out_and_counted_once(tmp_path, shuffle, place, caplog):
    pattern = write(tmp_path, indexed=True)
    offset = flip_in_record(tmp_path / FILE, NUMBER, place)
    dataset = read_tfrecords(pattern, ID, batch_size=4, shuffle=shuffle, on_corrupt="skip")
    with caplog.at_level(logging.WARNING):
        epochs = [ids_of(dataset) for _ in range(3)]
    for steps in epochs:
        assert sorted(flat(steps)) == [i for i in range(30) if i != RECORD]
        assert sorted(map(len, steps)) in ([2] + [3] + [4] * 6, [1] + [4] * 7), "its batch has a row less, others not"
    assert skipped(dataset) == 1
    said = [line for line in caplog.messages if "left out" in line]
    assert len(said) == 1
    assert f"{tmp_path / FILE}: record {NUMBER} at byte {offset}" in said[0]


@pytest.mark.parametrize("place", [FLIPS["data"], FLIPS["data's checksum"]])
def test_without_an_index_flipped_data_is_found_just_so(tmp_path, shuffle, place):
    pattern = write(tmp_path)
    offset = flip_in_record(tmp_path / FILE, NUMBER, place)
    message = error_of(read_tfrecords(pattern, ID, batch_size=4, shuffle=shuffle))
    assert f"{tmp_path / FILE}: record {NUMBER} at byte {offset}: its " in message


@pytest.mark.parametrize("place", [FLIPS["length"], FLIPS["length's checksum"]])
def test_without_an_index_a_broken_length_ends_its_file(tmp_path, place, caplog):
    pattern = write(tmp_path)
    offset = flip_in_record(tmp_path / FILE, NUMBER, place)
    with pytest.raises(CorruptRecordError, match=f"record {NUMBER} at byte {offset}: its length field is damaged"):
        read_tfrecords(pattern, ID, batch_size=4)
    dataset = read_tfrecords(pattern, ID, batch_size=4, on_corrupt="skip")
    assert flat(ids_of(dataset)) == [*range(17), *range(20, 30)]
    assert skipped(dataset) == 1
    assert "without an index, what follows in the file can't be found" in caplog.text


@pytest.mark.parametrize("cut", [1, 20])
@pytest.mark.parametrize("indexed", [False, True])
def test_a_truncated_file(tmp_path, shuffle, indexed, cut):
    """The cut is in the last record, or before it."""
    pattern = write(tmp_path, indexed=indexed)
    path = tmp_path / FILE
    offsets, size = records_of(str(path), path.read_bytes()), path.stat().st_size - cut
    os.truncate(path, size)
    lost = int(np.searchsorted(offsets, size, "right")) - 1
    with pytest.raises(CorruptRecordError) as raised:
        read_tfrecords(pattern, ID, batch_size=4, shuffle=shuffle)
    assert f"{path}: record {lost} at byte {offsets[lost]}: the file ends within it" in str(raised.value)
    assert f"after {size}" in str(raised.value)
    dataset = read_tfrecords(pattern, ID, batch_size=4, shuffle=shuffle, on_corrupt="skip")
    assert sorted(flat(ids_of(dataset))) == [*range(10 + lost), *range(20, 30)]
    assert skipped(dataset) == (10 - lost if indexed else 1)


def test_a_file_that_became_empty(tmp_path, shuffle):
    pattern = write(tmp_path, indexed=True)
    os.truncate(tmp_path / FILE, 0)
    with pytest.raises(CorruptRecordError, match=f"{FILE}: record 0 at byte 0"):
        read_tfrecords(pattern, ID, batch_size=4, shuffle=shuffle)
    dataset = read_tfrecords(pattern, ID, batch_size=4, shuffle=shuffle, on_corrupt="skip")
    assert sorted(flat(ids_of(dataset))) == [*range(10), *range(20, 30)]
    assert skipped(dataset) == 10


def test_an_empty_file_without_an_index_is_a_warning(tmp_path, shuffle, caplog):
    pattern = write_shards(tmp_path, [3, 0, 3])
    assert sorted(flat(ids_of(read_tfrecords(pattern, ID, batch_size=4, shuffle=shuffle)))) == list(range(6))
    assert f"1 of 3 files are empty, the first is {tmp_path / FILE}" in caplog.text


def test_a_file_that_its_index_names_is_missing(tmp_path):
    pattern = write(tmp_path, indexed=True)
    (tmp_path / FILE).unlink()
    with pytest.raises(DataError, match=f"2 files, 1 missing, the first is {tmp_path / FILE}"):
        read_tfrecords(pattern, ID, batch_size=4)
    only = read_tfrecords(tmp_path / "part-02*", ID, batch_size=4)
    assert flat(ids_of(only)) == list(range(20, 30)), "what isn't asked for may be missing"


def test_a_file_is_missing_by_the_names_of_the_others(tmp_path):
    for shard, path in enumerate(sorted(Path(write(tmp_path)).parent.glob("*"))):
        path.rename(tmp_path / f"train-{shard:05d}-of-00004.tfrecord")
    with pytest.raises(DataError, match=r"1 missing, the first is .*train-00003-of-00004"):
        read_tfrecords(tmp_path / "train-*", ID, batch_size=4)


@pytest.mark.parametrize("change", ["rewritten", "cut", "removed"])
def test_a_file_that_changes_between_epochs(tmp_path, shuffle, change, monkeypatch):
    pattern = write(tmp_path, indexed=True)
    dataset = read_tfrecords(pattern, ID, batch_size=4, shuffle=shuffle)
    assert len(flat(ids_of(dataset))) == 30
    path = tmp_path / FILE
    if change == "removed":
        path.unlink()
    elif change == "cut":
        os.truncate(path, 100)
    else:  # as a copy would do it; the same size
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    message = error_of(dataset)
    assert str(path) in message
    assert ("gone" if change == "removed" else "changed during the run") in message


def test_a_file_that_is_cut_between_steps(tmp_path, shuffle):
    """Chunks and prefetching have read some steps ahead; an error must come, not a crash and not other records."""
    pattern = write_shards(tmp_path, [20_000] * 3, content=lambda n: record(n, filler=strings(b"x" * 200)))
    dataset = read_tfrecords(pattern, ID, batch_size=16, shuffle=shuffle)
    seen = []
    with pytest.raises(tf.errors.OpError, match="changed during the run"):
        for step, batch in enumerate(dataset):
            seen += batch["id"].numpy().tolist()
            if step == 2:
                for shard in range(3):
                    os.truncate(tmp_path / f"part-{shard:02d}.tfrecord", 1000)
    assert len(seen) == len(set(seen)) < 60_000


WRONG_CONTENT = {
    "missing": (record(RECORD), "feature 'x' is missing; the record has id"),
    "type": (record(RECORD, x=integers([1, 2])), "feature 'x' is of type int64; expected string"),
    "length": (record(RECORD, x=strings(b"a")), "feature 'x' has 1 values; expected 2"),
    "bytes": (b"\xff\xfe\xfd", "its 3 bytes are no tf.train.Example"),
}


@pytest.mark.parametrize("kind", WRONG_CONTENT)
def test_a_record_that_is_not_what_features_says(tmp_path, shuffle, kind):
    wrong, what = WRONG_CONTENT[kind]

    def content(number: int) -> bytes:
        return wrong if number == RECORD else record(number, x=strings(b"a", b"b"))

    features = {**ID, "x": tf.io.FixedLenFeature([2], tf.string)}
    pattern = write(tmp_path, content=content)
    message = error_of(read_tfrecords(pattern, features, batch_size=4, shuffle=shuffle))
    offset = offset_of(tmp_path / FILE, NUMBER)
    assert f"{tmp_path / FILE}: record {NUMBER} at byte {offset}: {what}." in message
    assert "Correct `features`" in message
    dataset = read_tfrecords(pattern, features, batch_size=4, shuffle=shuffle, on_corrupt="skip")
    assert sorted(flat(ids_of(dataset))) == [i for i in range(30) if i != RECORD]
    assert skipped(dataset) == 1


def test_features_of_another_type_in_all_records_name_the_first(tmp_path):
    features = {"id": tf.io.FixedLenFeature([], tf.string)}
    message = error_of(read_tfrecords(write(tmp_path), features, batch_size=4))
    assert "part-00.tfrecord: record 0 at byte 0: feature 'id' is of type int64; expected string" in message


def test_more_values_than_a_features_length_are_a_fault_of_the_record(tmp_path, shuffle):
    pattern = write(tmp_path, content=lambda n: record(n, x=integers(range(n % 4))))
    features, options = {**ID, "x": VariableLength("int64", length=2)}, {"batch_size": 4, "shuffle": shuffle}
    message = error_of(read_tfrecords(pattern, features, **options))
    assert re.search(
        r"part-0.\.tfrecord: record \d+ at byte \d+: feature 'x' has 3 values; expected at most 2", message
    )
    dataset = read_tfrecords(pattern, features, on_corrupt="skip", **options)
    assert sorted(flat(ids_of(dataset))) == [i for i in range(30) if i % 4 < 3]


def test_no_more_than_max_skipped_are_left_out(tmp_path, shuffle):
    pattern = write(tmp_path, indexed=True)
    for number in (1, 4, 8):
        flip_in_record(tmp_path / FILE, number, 14)
    options = {"batch_size": 4, "shuffle": shuffle, "on_corrupt": "skip"}
    dataset = read_tfrecords(pattern, ID, max_skipped=3, **options)
    for _ in range(3):
        assert len(flat(ids_of(dataset))) == 27, "the same records again don't count"
    message = error_of(read_tfrecords(pattern, ID, max_skipped=2, **options))
    assert re.search(
        rf"At most 2 records may be left out. Received: one more, {tmp_path / FILE}: record [148] ", message
    )
    error_of(read_tfrecords(pattern, ID, max_skipped=0, **options))


def test_damage_before_the_first_step_counts_too(tmp_path):
    pattern = write(tmp_path)
    for file in ("part-00.tfrecord", FILE):
        os.truncate(tmp_path / file, 100)
    with pytest.raises(DataError, match="At most 1 records may be left out"):
        read_tfrecords(pattern, ID, batch_size=4, on_corrupt="skip", max_skipped=1)


def test_the_wrong_compression_is_named(tmp_path):
    plain, packed = write(tmp_path, name="plain"), write(tmp_path, name="packed", compression="GZIP")
    with pytest.raises(DataError, match="Name its compression, GZIP"):
        read_tfrecords(packed, ID, batch_size=4, compression="")
    for other in ("GZIP", "ZLIB"):
        with pytest.raises(DataError, match=f"can't be expanded as {other}.*look like no compression"):
            read_tfrecords(plain, ID, batch_size=4, compression=other)
    with pytest.raises(DataError, match=r"can't be expanded as ZLIB.*look like GZIP"):
        read_tfrecords(packed, ID, batch_size=4, compression="ZLIB")
    write_index(plain)
    with pytest.raises(DataError, match=r"same compression, 'GZIP'\. Received: ''\."):
        read_tfrecords(plain, ID, batch_size=4, compression="GZIP")


def test_a_file_that_is_compressed_unlike_the_first_is_named(tmp_path):
    pattern = write(tmp_path)
    path = tmp_path / FILE
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(CorruptRecordError, match=f"{FILE}: record 0 at byte 0: the file is compressed"):
        read_tfrecords(pattern, ID, batch_size=4)


COMPRESS = {"GZIP": gzip.compress, "ZLIB": zlib.compress}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("mode", [False, "local", "global"])
def test_in_compressed_files_broken_records_are_named_by_their_uncompressed_bytes(tmp_path, compression, mode):
    pattern = write(tmp_path)
    path = tmp_path / FILE
    offset = flip_in_record(path, NUMBER, 14)
    for each in tmp_path.glob("part-*"):
        each.write_bytes(COMPRESS[compression](each.read_bytes()))
    message = error_of(read_tfrecords(pattern, ID, batch_size=4, shuffle=mode))
    assert f"{path}: record {NUMBER} at byte {offset}: its " in message
    dataset = read_tfrecords(pattern, ID, batch_size=4, shuffle=mode, on_corrupt="skip")
    assert sorted(flat(ids_of(dataset))) == [i for i in range(30) if i != RECORD]


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("damage", ["flipped", "cut"])
@pytest.mark.parametrize("indexed", [False, True])
def test_a_compressed_file_that_can_not_be_expanded(tmp_path, compression, damage, indexed):
    pattern = write(tmp_path, compression=compression, indexed=indexed)
    path = tmp_path / FILE
    if damage == "flipped":
        flip(path, path.stat().st_size // 2, 0xFF)
    else:
        os.truncate(path, path.stat().st_size - 10)
    expected = "bytes, as its index says" if indexed and damage == "cut" else f"can't be expanded as {compression}"
    with pytest.raises((DataError, tf.errors.OpError), match=expected) as raised:
        ids_of(read_tfrecords(pattern, ID, batch_size=4))
    assert str(path) in str(raised.value)
    if not indexed:
        dataset = read_tfrecords(pattern, ID, batch_size=4, on_corrupt="skip")
        assert flat(ids_of(dataset)) == [*range(10), *range(20, 30)]


def test_a_stale_index(tmp_path):
    """The files were written again, larger, after it."""
    pattern = write(tmp_path, indexed=True)
    write_shards(tmp_path, [10, 12, 10])
    with pytest.raises(DataError, match=r"part-01.*expected \d+ bytes, as its index says.*tfdist data index"):
        read_tfrecords(pattern, ID, batch_size=4)


def test_an_index_of_files_of_the_same_size_but_other_records(tmp_path, shuffle):
    """Lengths differ, their sum doesn't."""
    sizes = [5, 10]
    pattern = write_shards(tmp_path, [2], content=lambda n: record(n, x=strings(b"x" * sizes[n])), indexed=True)
    sizes.reverse()
    write_shards(tmp_path, [2], content=lambda n: record(n, x=strings(b"x" * sizes[n])))
    dataset = read_tfrecords(pattern, ID, batch_size=1, shuffle=shuffle)
    assert "part-00.tfrecord: record " in error_of(dataset)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_index(tmp_path, damage):
    pattern = write(tmp_path)
    index = Path(write_index(pattern))
    data = index.read_bytes()
    index.write_bytes({"cut": data[: len(data) // 2], "noise": b"noise", "empty": b""}[damage])
    with pytest.raises(DataError, match=rf"{index}: expected the index of TFRecord files.*tfdist data index"):
        read_tfrecords(pattern, ID, batch_size=4)


@pytest.mark.parametrize("start", range(0, 1500, 60))
def test_a_flipped_bit_in_the_index_is_an_error_or_changes_nothing(tmp_path, start):
    pattern = write(tmp_path)
    index = Path(write_index(pattern))
    place = start % index.stat().st_size
    flip(index, place, 4)
    try:
        ids = flat(ids_of(read_tfrecords(pattern, ID, batch_size=4)))
    except (DataError, tf.errors.OpError) as error:
        assert isinstance(error, DataError) or isinstance(take_error(), DataError)
    else:
        assert ids == list(range(30))
