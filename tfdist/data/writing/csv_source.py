"""Records of a CSV file, with column types inferred from its first rows."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from tfdist.data.features import Feature, String, Tensor
from tfdist.errors import DataError

# Enough to see most columns' rare values; later ones that don't fit are errors, not guesses.
SAMPLE_ROWS = 10_000

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")  # 007 is a name, not a number
_KINDS: dict[str, Feature] = {"int64": Tensor((), "int64"), "float32": Tensor((), "float32"), "string": String()}


class CsvSource:
    """A CSV file with a header; `.tsv` has tabs between columns.

    A column is int64 if all its cells in the sample are integers, float32 if all are numbers or empty (which is NaN),
    and otherwise strings.

    Args:
        path: Of the file, UTF-8.
        features: What the records hold; by default it is inferred.

    Raises:
        DataError: If the file has no header, or names a column twice.
    """

    def __init__(self, path: str, features: Mapping[str, Feature] | None = None) -> None:
        self._path = path
        with self._open() as file:
            self._names = self._header(self._rows(file))
        self.features = dict(features) if features is not None else self._infer()
        self._converters = {name: _converter(feature) for name, feature in self.features.items()}
        missing = [name for name in self.features if name not in self._names]
        if missing:
            raise DataError(
                f"{path}: expected the columns {sorted(self.features)}. Received: {self._names}, without {missing[0]}. "
                "Correct the features or the header."
            )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self._open() as file:
            rows = self._rows(file)
            self._header(rows)
            for line, row in rows:
                cells = dict(zip(self._names, row, strict=True))
                yield {name: self._convert(name, cells[name], line) for name in self.features}

    def _convert(self, name: str, cell: str, line: int) -> Any:
        try:
            return self._converters[name](cell)
        except ValueError:
            kind = getattr(self.features[name], "dtype", "string")
            raise DataError(
                f"{self._path}: line {line}: column {name!r} must be {kind}. Received: {cell!r}. Correct the cell, or "
                f"declare the column, for example as tfdist.data.String()."
            ) from None

    def _open(self) -> Any:
        return _text(self._path)

    def _rows(self, file: Any) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(file, delimiter="\t" if self._path.endswith(".tsv") else ",", strict=True)
        try:
            for row in reader:
                if row:  # the csv module's own word for a blank line
                    self._check_width(row, reader.line_num)
                    yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{self._path}: line {reader.line_num}: expected rows of a CSV file, UTF-8. Received: {error}. "
                "Correct the file."
            ) from error

    def _check_width(self, row: list[str], line: int) -> None:
        names = getattr(self, "_names", row)
        if len(row) != len(names):
            raise DataError(
                f"{self._path}: line {line}: expected {len(names)} cells, as the header has. Received: {len(row)}. "
                "Correct the row; cells with commas must be quoted."
            )

    def _header(self, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
        _, names = next(rows, (0, []))
        twice = [name for name in names if names.count(name) > 1]
        if not names or twice or "" in names:
            raise DataError(
                f"{self._path}: expected a header that names each column once. Received: {names}. Write it in the "
                "first line."
            )
        return names

    def _infer(self) -> dict[str, Feature]:
        with self._open() as file:
            rows = self._rows(file)
            self._header(rows)
            sample = [row for _, row in itertools.islice(rows, SAMPLE_ROWS)]
        columns = list(zip(*sample, strict=True)) or [()] * len(self._names)
        return {name: _KINDS[_kind(cells)] for name, cells in zip(self._names, columns, strict=True)}


def _text(path: str) -> Any:
    if "://" in path:
        return tf.io.gfile.GFile(path)
    return open(path, encoding="utf-8-sig", newline="")


def _kind(cells: tuple[str, ...]) -> str:
    if not any(cells):
        return "string"
    if all(_INTEGER.fullmatch(cell) for cell in cells):
        return "int64"
    return "float32" if all(map(_is_number, cells)) else "string"


def _is_number(cell: str) -> bool:
    text = cell.strip()
    if "_" in text or re.fullmatch(r"[+-]?0\d+", text):
        return False
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def _converter(feature: Feature) -> Callable[[str], Any]:
    dtype = tf.as_dtype(getattr(feature, "dtype", "string"))
    if dtype.is_integer:
        return int
    return _number if dtype.is_floating else str


def _number(cell: str) -> float:
    return float(cell.strip() or "nan")
