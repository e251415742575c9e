"""A number for each row that a replica trains on, the same for the same row wherever it is trained on.

The rows of a batch are a multiset: a global batch is what it is in whatever order its rows stand, and whichever replica
has which.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

#: Hashes of one row's bytes, for each row of a leaf.
RowBytes = list[bytes]


def note_rows(data: Any, has_rows: Any, take: Callable[[np.ndarray], None]) -> None:
    """Have `take` called with the numbers of a batch's rows when the step runs, traced or not.

    Args:
        data: nesting of dense, ragged and sparse tensors with rows in dimension 0.
        has_rows: bool scalar; false where the batch only stands for one without rows.
        take: gets a uint64 array, one number a row.
    """
    leaves = [part for leaf in tf.nest.flatten(data) for part in _parts(leaf)]
    if not leaves:
        return
    kinds = [kind for kind, _ in leaves]
    sizes = [len(tensors) for _, tensors in leaves]

    def note(has_rows: np.ndarray, *arrays: np.ndarray) -> None:
        take(row_numbers(kinds, _grouped(arrays, sizes)) if has_rows else np.zeros([0], np.uint64))

    tf.numpy_function(note, [has_rows, *(tensor for _, tensors in leaves for tensor in tensors)], [])


def _parts(leaf: Any) -> list[tuple[str, list[tf.Tensor]]]:
    """A leaf's kind and its tensors; nothing for what has no rows."""
    if isinstance(leaf, tf.RaggedTensor):
        return [("ragged", [leaf.flat_values, *leaf.nested_row_splits])]
    if isinstance(leaf, tf.SparseTensor):
        return [("sparse", [leaf.values, leaf.indices, leaf.dense_shape])]
    if not tf.is_tensor(leaf) and not isinstance(leaf, np.ndarray):
        return []
    leaf = tf.convert_to_tensor(leaf)
    return [] if leaf.shape.rank == 0 else [("dense", [leaf])]


def _grouped(arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> list[list[np.ndarray]]:
    left = iter(arrays)
    return [[next(left) for _ in range(size)] for size in sizes]


def row_numbers(kinds: Sequence[str], leaves: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """A uint64 number a row, of the bytes that all leaves hold of it."""
    columns = [_BYTES[kind](*leaf) for kind, leaf in zip(kinds, leaves, strict=True)]
    return np.array([_number(row) for row in zip(*columns, strict=False)], np.uint64)


def _number(row: Sequence[bytes]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in row:
        digest.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(digest.digest(), "little")


def _dense(values: np.ndarray) -> RowBytes:
    """Without zeros at the end: a worker pads rows to the longest of its own, not of the global batch."""
    return [_bytes(row).rstrip(b"\0") if row.ndim else _bytes(row) for row in map(np.asarray, values)]


def _ragged(values: np.ndarray, *splits: np.ndarray) -> RowBytes:
    rows = []
    for row in range(len(splits[0]) - 1):
        begin, end, shape = row, row + 1, b""
        for part in splits:
            shape += np.diff(part[begin : end + 1]).tobytes()
            begin, end = part[begin], part[end]
        rows.append(shape + _bytes(values[begin:end]))
    return rows


def _sparse(values: np.ndarray, indices: np.ndarray, shape: np.ndarray) -> RowBytes:
    bounds = np.searchsorted(indices[:, 0], np.arange(int(shape[0]) + 1))
    return [
        np.ascontiguousarray(indices[begin:end, 1:]).tobytes() + _bytes(values[begin:end])
        for begin, end in itertools.pairwise(bounds)
    ]


def _bytes(values: Any) -> bytes:
    array = np.asarray(values)
    if array.dtype == object:  # strings
        return b"\0".join(bytes(text) for text in array.ravel())
    return np.ascontiguousarray(array).tobytes()


_BYTES: dict[str, Callable[..., RowBytes]] = {"dense": _dense, "ragged": _ragged, "sparse": _sparse}
