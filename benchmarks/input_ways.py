"""Ways to read the records of a folder, each a function that returns how many it saw; see input.py."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

import tfdist

SPECS = {"x": tf.io.FixedLenFeature([], tf.string), "y": tf.io.FixedLenFeature([], tf.int64)}
SHUFFLE_BUFFER = 16_384
_READ_BYTES = 1 << 20


def candidates(folder: Path, batch: int, count: int) -> dict[str, Callable[[], int]]:
    """All ways that can be tried here; tf.data's and tfdist's data sets are made once, as in training."""
    buffer = min(SHUFFLE_BUFFER, count // 4)
    found = {
        "bytes alone": functools.partial(read_bytes, folder),
        "tf.data": _counter(tf_data(folder, batch)),
        "tfdist": _counter(ours(folder, batch)),
        "tfdist, worker 0 and 1 of 2": _both_workers(folder, batch),
        "tf.data, shuffle buffer": _counter(tf_data(folder, batch, buffer)),
        "tfdist, local": _counter(ours(folder, batch, shuffle="local", shuffle_buffer=buffer)),
        "tfdist, global": _counter(ours(folder, batch, shuffle="global")),
    }
    with contextlib.suppress(ImportError):
        found["grain, ArrayRecord, global"] = grain(folder, batch)
    return found


def _counter(dataset: tf.data.Dataset) -> Callable[[], int]:
    return lambda: sum(int(batch["y"].shape[0]) for batch in dataset)


def _both_workers(folder: Path, batch: int) -> Callable[[], int]:
    """One after the other: all the work that two workers do."""
    parts = [ours(folder, batch, shard=tfdist.data.ShardOptions(2, index)) for index in range(2)]
    return lambda: sum(_counter(part)() for part in parts)


def read_bytes(folder: Path) -> int:
    """The files from front to back; how many records they have is taken from the index."""
    buffer = bytearray(_READ_BYTES)
    for path in sorted(folder.glob("*.tfrecord")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return _index(folder).num_records


@functools.cache
def _index(folder: Path) -> tfdist.data.files.index.DatasetIndex:  # type: ignore[name-defined]
    from tfdist.data.files.index import DatasetIndex

    return DatasetIndex.load(str(next(folder.glob("*.tfdist-index"))))


def tf_data(folder: Path, batch: int, shuffle_buffer: int = 0) -> tf.data.Dataset:
    """As the guide "Better performance with the tf.data API" has it: interleave, batch, parse in batches, prefetch."""
    files = tf.data.Dataset.from_tensor_slices(sorted(map(str, folder.glob("*.tfrecord"))))
    records = files.interleave(
        tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    if shuffle_buffer:
        records = records.shuffle(shuffle_buffer)
    batches = records.batch(batch).map(
        lambda serialized: tf.io.parse_example(serialized, SPECS), num_parallel_calls=tf.data.AUTOTUNE
    )
    return batches.prefetch(tf.data.AUTOTUNE)


def ours(folder: Path, batch: int, **options: object) -> tf.data.Dataset:
    return tfdist.data.read_tfrecords(str(folder / "x-*.tfrecord"), batch_size=batch, **options)


def grain(folder: Path, batch: int) -> Callable[[], int]:
    """The same records, serialized alike, as ArrayRecord files, in random order, parsed by grain's own parser."""
    import grain
    from array_record.python import array_record_module
    from grain.experimental import parse_tf_example

    paths = []
    for path in sorted(folder.glob("*.tfrecord")):
        paths.append(str(path.with_suffix(".array_record")))
        if not Path(paths[-1]).exists():
            writer = array_record_module.ArrayRecordWriter(paths[-1], "group_size:1,uncompressed")
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                writer.write(record)
            writer.close()
    source = grain.sources.ArrayRecordDataSource(paths)
    batches = grain.MapDataset.source(source).shuffle(seed=0).map(parse_tf_example).batch(batch, drop_remainder=False)
    return lambda: sum(len(one["y"]) for one in batches.to_iter_dataset())


def first(folder: Path, name: str) -> None:
    """Make a data set and take a batch."""
    if name == "tf.data":
        dataset = tf_data(folder, 256)
    else:
        features = {"x": tfdist.data.String(), "y": tfdist.data.Tensor([], "int64")}
        dataset = ours(folder, 256, features=features, shuffle=name == "shuffled")
    next(iter(dataset))
