"""What to change when training waits for input, by what is read."""

from __future__ import annotations

from collections.abc import Sequence

from tfdist.data.features import Image
from tfdist.data.reading.record_reader import RecordReader

_SMALL_ROWS = 32
_LAUNCH = "start more data workers (tfdist launch --data_workers=2)"


def advice(readers: Sequence[RecordReader]) -> str:
    """One sentence, what is likely to help most first.

    Args:
        readers: Those that training read with; none if its input isn't of `read_tfrecords`.
    """
    if not readers:
        return (
            "Use tfdist.data.read_tfrecords, or add num_parallel_calls=tf.data.AUTOTUNE and prefetch to the data set."
        )
    hints = list(dict.fromkeys(hint for reader in readers for hint in _hints(reader)))
    return f"To change that: {'; '.join(hints)}."


def _hints(reader: RecordReader) -> list[str]:
    options, shards = reader.options, reader.shards
    found = []
    is_remote = "://" in shards.paths[0]
    if (is_remote or shards.compression) and not options.cache:
        what = "remote" if is_remote else "compressed"
        found.append(f"the files are {what}: keep local copies with cache=DIRECTORY, or cache='memory' if they fit")
    if any(isinstance(feature, Image) and feature.shape for feature in reader.features.values()):
        found.append(f"images are decoded: write them smaller or as tensors, or {_LAUNCH}")
    if reader.rows < _SMALL_ROWS:
        found.append(f"batches of {reader.rows} rows are small: use a larger batch_size")
    if is_remote and len(shards.paths) < 2 * options.shard.num_shards:
        found.append("the data lies in few files: write more shards (tfdist data reshard), which are read in parallel")
    found.append("give maps behind read_tfrecords num_parallel_calls=tf.data.AUTOTUNE")
    if _LAUNCH not in " ".join(found):
        found.append(_LAUNCH)
    return found
