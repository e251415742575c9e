"""What is in TFRecord files, in words."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist.data.features import Feature
from tfdist.data.features.plain import Plain
from tfdist.data.files.data_files import DataFiles, parse_all
from tfdist.data.files.index import scan_shards

_MOST_VALUES = 8
_MOST_CHARACTERS = 60
_MOST_FILES = 10


def inspect(patterns: Sequence[str], *, num_records: int = 3, progress: bool = False) -> Iterator[str]:
    """Yields lines that say what files hold.

    Args:
        patterns: Of the files.
        num_records: How many records to show.
        progress: Whether to show a bar while files without an index are looked through.
    """
    files = DataFiles.find(patterns)
    yield from _files(files, progress)
    features = files.known_or_assumed_features()
    yield f"features    {len(features)}{'' if files.features else ', assumed from the first records, no index'}"
    width = max(map(len, features), default=0)
    for name, feature in features.items():
        yield f"  {name.ljust(width)}  {feature_text(feature)}"
    for i, record in enumerate(itertools.islice(files.all_records(), num_records)):
        yield f"record {i}, {len(record):,} bytes"
        for name, value in _values(features, record).items():
            yield f"  {name.ljust(width)}  {value}"


def feature_text(feature: Feature) -> str:
    """Returns a feature as one would write it."""
    return repr(feature.config) if isinstance(feature, Plain) else repr(feature)


def value_text(value: Any) -> str:
    """Returns one record's value in a line."""
    if isinstance(value, tf.RaggedTensor):
        value = value.to_tensor() if value.ragged_rank > 1 else value.values
    if isinstance(value, tf.SparseTensor):
        return f"{value_text(value.values)} at {value_text(value.indices[:, 1:])}"
    array = np.asarray(value)
    if array.dtype == object:
        return _of_strings(array)
    if array.size <= _MOST_VALUES:
        return str(array.tolist())
    if array.dtype.kind in "biuf":
        return f"{array.dtype}{list(array.shape)} from {array.min()} to {array.max()}, mean {array.mean():.6g}"
    return f"{array.dtype}{list(array.shape)}"


def _files(files: DataFiles, progress: bool) -> Iterator[str]:
    plain = [path for path in files.paths if path not in files.indexed]
    scanned = scan_shards(plain, files.compression, checksum=False, progress=progress)
    shards = {**files.indexed, **dict(zip(plain, scanned, strict=True))}
    counts = [shards[path].num_records for path in files.paths]
    sizes = [tf.io.gfile.stat(path).length for path in files.paths]
    yield f"files       {len(files.paths)}{'' if not plain else f', {len(plain)} without an index'}"
    yield f"records     {sum(counts):,}"
    yield f"bytes       {sum(sizes):,}{f', {files.compression}' if files.compression else ''}"
    for path, count, size in list(zip(files.paths, counts, sizes, strict=True))[:_MOST_FILES]:
        yield f"  {os.path.basename(path)}  {count:,} records, {size:,} bytes"
    if len(files.paths) > _MOST_FILES:
        yield f"  and {len(files.paths) - _MOST_FILES} more"


def _values(features: dict[str, Feature], record: bytes) -> dict[str, str]:
    found = {}
    for name, feature in features.items():
        try:
            value = parse_all({name: feature}, [record])[name]
        except tf.errors.OpError as error:
            found[name] = f"can't be read: {error.message.splitlines()[0]}"
        else:
            found[name] = value_text(value if isinstance(value, tf.SparseTensor) else value[0])
    return found


def _of_strings(array: np.ndarray) -> str:
    texts = [text(each) for each in array.ravel()[:_MOST_VALUES]]
    rest = array.size - len(texts)
    return texts[0] if not array.shape else f"[{', '.join(texts)}{f', and {rest} more' if rest else ''}]"


def text(value: Any) -> str:
    """Returns a scalar as one reads it: bytes as text where they are text, and not more of them than fit in a line."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        shown = repr(value.decode())
    except UnicodeDecodeError:
        shown = repr(value)
    return shown if len(shown) <= _MOST_CHARACTERS else f"{shown[:_MOST_CHARACTERS]}... ({len(value):,} bytes)"
