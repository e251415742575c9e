"""Ranges, lengths and frequent values of what TFRecord files hold."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfdist.data.features import Feature, Ragged, VariableLength
from tfdist.data.files.data_files import DataFiles, parse_all
from tfdist.data.files.inspection import text
from tfdist.errors import DataError

_BATCH = 256
_MOST_TOP = 10
# A feature with more distinct values is no label, and isn't counted on.
_MOST_DISTINCT = 10_000


@dataclass
class Moments:
    """Range, mean and standard deviation of numbers that come in parts.

    Attributes:
        count: Finite numbers so far.
        mean: Of these.
        squares: Sum of squares of their distances from the mean.
        least, most: The smallest and largest.
        others: NaNs and infinities.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    most: float = -math.inf
    others: int = 0

    def add(self, numbers: np.ndarray) -> None:
        """Adds numbers (Chan, Golub, LeVeque 1979: exact where a sum of squares would cancel)."""
        numbers = numbers.astype(np.float64, copy=False).ravel()
        finite = numbers[np.isfinite(numbers)]
        self.others += numbers.size - finite.size
        if not finite.size:
            return
        mean, total = float(finite.mean()), self.count + finite.size
        distance = mean - self.mean
        self.squares += float(((finite - mean) ** 2).sum()) + distance**2 * self.count * finite.size / total
        self.mean += distance * finite.size / total
        self.count = total
        self.least, self.most = min(self.least, float(finite.min())), max(self.most, float(finite.max()))

    def __str__(self) -> str:
        others = f", {self.others:,} not finite" if self.others else ""
        if not self.count:
            return f"none{others}"
        deviation = math.sqrt(self.squares / self.count)
        return f"{self.least:.6g} to {self.most:.6g}, mean {self.mean:.6g}, std {deviation:.6g}{others}"


@dataclass
class Column:
    """What one feature's values are like.

    Attributes:
        values: Of numbers.
        lengths: Values of a record where they differ, or bytes of a string.
        top: How often each scalar occurs; None once there are too many to be labels.
    """

    values: Moments = field(default_factory=Moments)
    lengths: Moments = field(default_factory=Moments)
    top: Counter[Any] | None = field(default_factory=Counter)

    def add(self, tensor: Any) -> None:
        """Adds the values of some records."""
        if isinstance(tensor, tf.RaggedTensor):
            self.lengths.add(tensor.row_lengths().numpy())
            self._add_values(tensor.flat_values.numpy())
        elif isinstance(tensor, tf.SparseTensor):
            rows = tensor.indices.numpy()[:, 0]
            self.lengths.add(np.bincount(rows, minlength=int(tensor.dense_shape[0])))
            self._add_values(tensor.values.numpy())
        else:
            array = tensor.numpy()
            self._add_values(array)
            if array.ndim == 1 and array.dtype.kind != "f":
                self._count(array)

    def lines(self) -> Iterator[str]:
        """Yields what was found, a line each."""
        if self.values.count or self.values.others:
            yield f"values   {self.values}"
        if self.lengths.count:
            yield f"lengths  {self.lengths}"
        if self.top:
            shown = ", ".join(f"{text(value)}: {n:,}" for value, n in self.top.most_common(_MOST_TOP))
            rest = len(self.top) - _MOST_TOP
            yield f"top      {shown}{f', and {rest:,} more' if rest > 0 else ''}"

    def _add_values(self, array: np.ndarray) -> None:
        if array.dtype == object:
            self.lengths.add(np.fromiter(map(len, array.ravel()), np.int64, array.size))
        elif array.dtype.kind != "c":
            self.values.add(array)

    def _count(self, array: np.ndarray) -> None:
        if self.top is not None:
            self.top.update(array.tolist())
            self.top = self.top if len(self.top) <= _MOST_DISTINCT else None


def stats(patterns: Sequence[str], *, progress: bool = False) -> Iterator[str]:
    """Yields lines that say what the values of each feature are like, and how even the shards are.

    Args:
        patterns: Of the files.
        progress: Whether to show a bar.

    Raises:
        DataError: If a record can't be read.
    """
    files = DataFiles.find(patterns)
    # Without their padding.
    features: dict[str, Feature] = {
        name: Ragged(one.dtype) if isinstance(one, VariableLength) else one
        for name, one in files.known_or_assumed_features().items()
    }
    columns = {name: Column() for name in features}
    records, sizes = Moments(), Moments()
    for path in tqdm(files.paths, "stats", unit=" files", disable=not progress, leave=False):
        records.add(np.array([_add_file(files, path, features, columns)]))
        sizes.add(np.array([tf.io.gfile.stat(path).length]))
    yield f"records {round(records.mean * records.count):,} in {len(files.paths)} files"
    yield f"  of a file       {records}"
    yield f"  bytes of a file {sizes}"
    for name, column in columns.items():
        yield name
        yield from (f"  {line}" for line in column.lines())


def _add_file(files: DataFiles, path: str, features: dict[str, Feature], columns: dict[str, Column]) -> int:
    records, count = files.records(path), 0
    while batch := list(itertools.islice(records, _BATCH)):
        try:
            parsed = parse_all(features, batch)
        except (tf.errors.OpError, ValueError) as error:
            raise DataError(
                f"{path}: records {count} to {count + len(batch) - 1}: expected what the features say. Received: "
                f"{str(error).splitlines()[0]}. To see all faults: tfdist data verify {path}"
            ) from error
        for name, tensor in parsed.items():
            columns[name].add(tensor)
        count += len(batch)
    return count
