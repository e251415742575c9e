"""The files of a data set as they are, to look into: nothing of them is taken for right."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfdist.data.features import Feature, features_from_json
from tfdist.data.features.plain import Plain
from tfdist.data.files import framing
from tfdist.data.files.index import ShardIndex, find_indexes, index_path
from tfdist.data.files.shard_files import as_glob
from tfdist.data.files.shards import matching_files, missing_files
from tfdist.errors import DataError

# Of files without an index: enough to see features that some records lack.
_SAMPLE_RECORDS = 100
_NUMBER = re.compile(r"-\d{5}-of-\d{5}")
_TYPES = {"float_list": tf.float32, "int64_list": tf.int64, "bytes_list": tf.string}


@dataclass(frozen=True)
class DataFiles:
    """The files of a data set.

    Attributes:
        paths: Sorted by name.
        compression: "", "GZIP" or "ZLIB".
        missing: Files that belong to these and aren't there.
        indexed: What an index says of a file, by its path, where there is one.
        features: What a record holds, as the index says; None if none says it.
    """

    paths: list[str]
    compression: str
    missing: list[str]
    indexed: dict[str, ShardIndex]
    features: dict[str, Feature] | None

    @classmethod
    def find(cls, patterns: Sequence[str]) -> DataFiles:
        """Returns the files that match.

        Args:
            patterns: Paths, glob patterns, or patterns as `TFRecordWriter` takes them.

        Raises:
            FileNotFoundError: If nothing matches one of the patterns.
        """
        paths = matching_files(patterns)
        found = find_indexes(paths)
        described = next((index.features for index, _ in found.values() if index.features), None)
        said = next((index.compression for index, _ in found.values()), None)
        return cls(
            paths,
            framing.compression_of(paths[0]) if said is None else said,
            missing_files(paths, patterns, found),
            {path: shard for path, (_, shard) in found.items()},
            None if described is None else features_from_json(described),
        )

    def records(self, path: str) -> Iterator[bytes]:
        """Yields the records of one file.

        Raises:
            DataError: If one can't be read.
        """
        try:
            yield from tf.data.TFRecordDataset(path, self.compression).as_numpy_iterator()
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
            raise DataError(
                f"{path}: expected whole records. Received: {error.message}. All faults are listed by: "
                f"tfdist data verify {path}"
            ) from error

    def all_records(self) -> Iterator[bytes]:
        """Yields the records of all files, in order."""
        return itertools.chain.from_iterable(map(self.records, self.paths))

    def known_or_assumed_features(self) -> dict[str, Feature]:
        """Returns what a record holds; if no index says it, lists of any length, as the first records have them."""
        if self.features is not None:
            return self.features
        types: dict[str, Any] = {}
        for record in itertools.islice(self.all_records(), _SAMPLE_RECORDS):
            types.update(_types_of(record))
        return {name: Plain(tf.io.VarLenFeature(dtype)) for name, dtype in sorted(types.items())}


def common_pattern(patterns: Sequence[str]) -> str:
    """Returns the one pattern of files that a shell may have listed one by one.

    Raises:
        ValueError: If they have no common one.
    """
    found = {_NUMBER.sub("-*", as_glob(pattern)) for pattern in patterns}
    if len({index_path(pattern) for pattern in found}) != 1:
        raise ValueError(
            f"The files must be of one data set. Received: {', '.join(sorted(found)[:3])}. Give one pattern, in quotes."
        )
    return min(found)


def parse_all(features: dict[str, Feature], examples: Sequence[bytes]) -> dict[str, Any]:
    """Returns the tensors of some records."""
    parsing = {key: each for name, feature in features.items() for key, each in feature.parsing(name).items()}
    parsed = tf.io.parse_example(tf.constant(examples, tf.string, [len(examples)]), parsing) if parsing else {}
    for name, feature in features.items():
        feature.check(name, parsed)
    return {name: feature.finish(name, parsed) for name, feature in features.items()}


def _types_of(record: bytes) -> dict[str, Any]:
    try:
        found = tf.train.Example.FromString(record).features.feature
    except Exception:
        return {}  # not an Example; whoever parses it says so
    kinds = {name: feature.WhichOneof("kind") for name, feature in found.items()}
    return {name: _TYPES[kind] for name, kind in kinds.items() if kind}
