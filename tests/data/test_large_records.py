"""Records of many bytes, which are read in another way than small ones: the same records, the same faults."""

from __future__ import annotations

import numpy as np
import pytest

import tfdist
from tfdist.data import ShardOptions, TFRecordWriter, read_tfrecords
from tfdist.errors import CorruptRecordError

pytestmark = pytest.mark.unit

SIZE, RECORDS = 50_000, 45


@pytest.fixture
def path(tmp_path):
    with TFRecordWriter(str(tmp_path / "x"), {"x": tfdist.data.String()}, num_shards=2) as writer:
        for number in range(RECORDS):
            writer.write(x=bytes([number]) * (SIZE + number))
    return str(tmp_path / "x*")


def read(path, **kwargs):
    return read_tfrecords(path, batch_size=8, **{"shard": ShardOptions(), **kwargs})


@pytest.mark.parametrize("options", [{}, {"shuffle": "local"}, {"shuffle": True}, {"cache": "memory"}], ids=str)
@pytest.mark.parametrize("workers", [1, 2])
def test_each_is_read_once_and_whole(path, options, workers):
    found = [
        record
        for index in range(workers)
        for batch in read(path, shard=ShardOptions(workers, index), **options)
        for record in batch["x"].numpy()
    ]
    assert sorted(map(len, found)) == list(range(SIZE, SIZE + RECORDS))
    assert all(set(record) == {len(record) - SIZE} for record in found)


@pytest.mark.parametrize("byte", ["length", "data", "checksum"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_damaged_byte_is_found_and_its_record_named(path, tmp_path, shuffle, byte):
    data = read(path, shuffle=shuffle)
    (reader,) = tfdist.data.reading.reader_calls.readers_of(data)
    assert reader.are_large
    name, number, start = reader.shards.name(3)
    _, _, end = reader.shards.locate(np.array([3]))
    place = {"length": start, "data": start + 1000, "checksum": int(end[0]) - 1}[byte]
    with open(name, "r+b") as file:
        file.seek(place)
        flipped = file.read(1)[0] ^ 1
        file.seek(place)
        file.write(bytes([flipped]))
    again = read(path, shuffle=shuffle, on_corrupt="skip")
    assert sum(batch["x"].shape[0] for batch in again) == RECORDS - 1
    with pytest.raises(Exception, match=f"record {number} at byte {start}"):
        list(read(path, shuffle=shuffle))
    error = tfdist.data.reading.reader_calls.take_error()
    assert isinstance(error, CorruptRecordError)
