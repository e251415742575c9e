"""Weights in TensorFlow's format for tensors in slices, which every process writes and reads in its own parts.

Glossary:
    part: a box of a tensor; of each dimension a slice.
    block: what is written and read at once of a part, some of its first dimension.
    place: a variable's name in the file, the one that it has in `.weights.h5`.

Order of events:

    each process   holds on to its own parts                    pieces_of
                   writes them in its thread, flushes them,
                   and says so in `part-I.json`                 write_part
    the chief      waits for all, and gives their files one
                   index, `weights.index`                       merge
    afterwards     any process reads any part                   Source

A file of a process that was killed, or can't write, is waited for as long as files in the folder grow.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfdist._compat.keras_weight_places import load_h5_in_parts, load_values, weights_by_place
from tfdist.checkpoint.files import Entry, describe, flush_file
from tfdist.errors import CheckpointError

Part = tuple[slice, ...]

PREFIX = "weights"
INDEX = f"{PREFIX}.index"
#: Who reads a part reads all blocks that it meets, one after another, so this is what it needs beside the part.
_BLOCK_BYTES = 32 << 20
#: Views of so many rows begin where TensorFlow needs no copy.
_ROWS_TOGETHER = 64
#: For how long nothing may grow in the folder while the chief waits for another process.
_PATIENCE_SECONDS = 120.0


class Parts(Protocol):
    """What is asked of a strategy whose variables are in parts."""

    def of(self, variable: Any) -> Any:
        """The variable in parts behind Keras' one; None for what is none."""

    def written_here(self, variable: Any) -> list[tuple[Part, tf.Tensor]]:
        """The parts that this process writes, of all processes together each once."""

    def value(self, variable: Any, read: Callable[[list[Part]], list[Any]]) -> tf.Tensor:
        """A value for a variable from parts that `read` gives."""


@dataclass(frozen=True)
class Piece:
    """A part of a tensor, in memory.

    Attributes:
        place: of the tensor.
        shape: of all of it.
        part: which.
        value: of the part.
    """

    place: str
    shape: tuple[int, ...]
    part: Part
    value: tf.Tensor

    def blocks(self) -> list[Piece]:
        """The piece, cut by its first dimension."""
        if not self.shape:
            return [self]
        first, rest = self.part[0], self.part[1:]
        row_bytes = self.value.dtype.size * math.prod(self.value.shape[1:])
        rows = max(1, _BLOCK_BYTES // max(1, row_bytes))
        rows = rows // _ROWS_TOGETHER * _ROWS_TOGETHER or rows
        count = first.stop - first.start
        if count <= rows:
            return [self]
        return [
            Piece(
                self.place,
                self.shape,
                (slice(first.start + begin, first.start + min(begin + rows, count)), *rest),
                self.value[begin : begin + rows],
            )
            for begin in range(0, count, rows)
        ]


def pieces_of(model: Any, parts: Parts, *, is_chief: bool) -> list[Piece]:
    """All that this process writes of a model and its optimizer.

    Args:
        model: a built model.
        parts: of its strategy.
        is_chief: whether to write what isn't in parts.
    """
    found = []
    for place, value in weights_by_place(model).items():
        variable = parts.of(value)
        if variable is not None:
            shape = tuple(variable.shape)
            found += [Piece(place, shape, part, tensor) for part, tensor in parts.written_here(variable)]
        elif is_chief:
            with tf.device("CPU:0"):
                tensor = tf.convert_to_tensor(np.array(value))
            found.append(Piece(place, tuple(tensor.shape), tuple(slice(0, n) for n in tensor.shape), tensor))
    return found


def write_part(folder: Path, worker: int, pieces: list[Piece]) -> None:
    """Write this process' pieces and say so; in any thread.

    Args:
        folder: of the checkpoint that is being written; all processes see it.
        worker: this process.
        pieces: may be none.

    Raises:
        OSError: the disk is full, say; the chief hears of it.
    """
    said: dict[str, Any] = {"data": None}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if pieces:
            _save(folder / f"part-{worker}", [block for piece in pieces for block in piece.blocks()])
            data = _data_file(folder / f"part-{worker}", 0, 1)
            flush_file(data)
            said["data"] = describe(data)
    except BaseException as error:
        said = {"error": f"{type(error).__name__}: {error}"}
        raise
    finally:
        _say(folder, worker, said)


def _save(prefix: Path, pieces: list[Piece]) -> None:
    try:
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=str(prefix),
                tensor_names=[one.place for one in pieces],
                shape_and_slices=[_spec(one.shape, one.part) for one in pieces],
                tensors=[one.value for one in pieces],
            )
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def _spec(shape: tuple[int, ...], part: Part) -> str:
    """TensorFlow's name for a part; nothing for the whole."""
    if all((one.start, one.stop) == (0, size) for one, size in zip(part, shape, strict=True)):
        return ""
    sizes, begins = " ".join(map(str, shape)), ":".join(f"{one.start},{one.stop - one.start}" for one in part)
    return f"{sizes} {begins}"


def _data_file(prefix: Path, number: int, count: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{number:05}-of-{count:05}")


def _say(folder: Path, worker: int, what: dict[str, Any]) -> None:
    if folder.is_dir():  # or the chief has given up
        path = folder / f"part-{worker}.json"
        path.with_suffix(".writing").write_text(json.dumps(what))
        os.rename(path.with_suffix(".writing"), path)


def merge(folder: Path, workers: int, over: threading.Event) -> dict[str, Entry]:
    """On the chief: when all processes have written, make one set of files of theirs.

    Args:
        folder: of the checkpoint.
        workers: how many processes write.
        over: is set when nobody needs the checkpoint any more.

    Returns:
        The files, as the manifest has them.

    Raises:
        OSError, CheckpointError: a process couldn't write its part.
    """
    said = [_heard(folder, worker, over) for worker in range(workers)]
    writers = [worker for worker, one in enumerate(said) if one is not None]
    try:
        tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=[str(folder / f"part-{worker}") for worker in writers],
            destination_prefix=str(folder / PREFIX),
            delete_old_dirs=False,
        )
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
    for worker in range(workers):
        (folder / f"part-{worker}.json").unlink()
    flush_file(folder / INDEX)
    files = {INDEX: describe(folder / INDEX)}
    for number, worker in enumerate(writers):
        files[_data_file(folder / PREFIX, number, len(writers)).name] = said[worker]
    return files


def _heard(folder: Path, worker: int, over: threading.Event) -> Any:
    """What a process has said of its file: its size and SHA-256, None if it has no part of anything."""
    path, size, deadline = folder / f"part-{worker}.json", -1, 0.0
    while not path.exists():
        now = time.monotonic()
        if (found := _size_of(folder)) != size:
            size, deadline = found, now + _PATIENCE_SECONDS
        if now > deadline or over.wait(0.05):
            raise CheckpointError(
                f"Expected: worker {worker} to write its part of the checkpoint into {str(folder)!r}. Received: "
                f"nothing{'' if over.is_set() else f' for {_PATIENCE_SECONDS:.0f} s'}. All workers must see the "
                "directory; look at that worker's log."
            )
    said = json.loads(path.read_text())
    if "error" in said:
        raise CheckpointError(
            f"Expected: worker {worker} to write its part of the checkpoint into {str(folder)!r}. "
            f"Received: {said['error']}."
        )
    return said["data"]


def _size_of(folder: Path) -> int:
    """Bytes of its files; they come and go while TensorFlow writes."""
    size = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


class Source:
    """A checkpoint's weights, to be read by the part.

    Args:
        folder: of the checkpoint.

    Raises:
        ValueError: its index names more than its files hold, whoever wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self._prefix = str(folder / PREFIX)
        reader = tf.train.load_checkpoint(self._prefix)
        self.shapes = {place: tuple(shape) for place, shape in reader.get_variable_to_shape_map().items()}
        self._dtypes = reader.get_variable_to_dtype_map()
        named = sum(math.prod(shape) * self._dtypes[place].size for place, shape in self.shapes.items())
        held = sum(one.stat().st_size for one in folder.glob(f"{PREFIX}.data-*"))
        if named > held:
            raise ValueError(f"expected: tensors of at most the {held} bytes that there are. Received: {named} bytes")

    def read(self, place: str, parts: list[Part]) -> list[tf.Tensor]:
        """Parts of a tensor; reads the blocks that they meet."""
        with tf.device("CPU:0"):
            return tf.raw_ops.RestoreV2(
                prefix=self._prefix,
                tensor_names=[place] * len(parts),
                shape_and_slices=[_spec(self.shapes[place], part) for part in parts],
                dtypes=[self._dtypes[place]] * len(parts),
            )

    def whole(self, place: str) -> np.ndarray:
        """All of a tensor."""
        (value,) = self.read(place, [tuple(slice(0, size) for size in self.shapes[place])])
        return value.numpy()


def load(model: Any, folder: Path, h5: str, parts: Parts | None) -> None:
    """Load a checkpoint's weights, and its optimizer, into a model.

    Args:
        model: a built model.
        folder: of the checkpoint.
        h5: name of Keras' file, which is there if there are no shards.
        parts: of the model's strategy; None where variables are whole.

    Raises:
        ValueError: it has other weights than the model.
    """
    if parts is not None:
        _load_in_parts(model, folder, h5, parts)
    elif (folder / INDEX).exists():
        source = Source(folder)
        load_values(model, list(source.shapes), source.whole)
    else:
        model.load_weights(str(folder / h5))


def _load_in_parts(model: Any, folder: Path, h5: str, parts: Parts) -> None:
    found = {place: parts.of(one) for place, one in weights_by_place(model).items()}
    in_parts = {place: variable for place, variable in found.items() if variable is not None}

    def expected(place: str, variable: Any) -> None:
        in_parts[place] = parts.of(variable)

    def value(place: str, shape: tuple[int, ...], read: Callable[[list[Part]], list[Any]]) -> Any:
        variable = in_parts[place]
        if shape != tuple(variable.shape):
            raise ValueError(f"expected: {place} of shape {tuple(variable.shape)}. Received: shape={shape}")
        return parts.value(variable, read)

    if not (folder / INDEX).exists():
        load_h5_in_parts(model, str(folder / h5), in_parts, value, expected)
        return
    source = Source(folder)

    def stored(place: str) -> Any:
        if place not in in_parts:
            return source.whole(place)
        return value(place, source.shapes[place], lambda asked: source.read(place, asked))

    load_values(model, list(source.shapes), stored, expected)
