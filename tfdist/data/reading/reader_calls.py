"""What operations of a dataset's graph call in Python, in the process in which the graph runs.

Readers are found by a key that holds all of their options, so that a process which was only given the graph, such as a
tf.data worker, makes a reader of its own.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdist._compat import tensorflow_py_functions as py_functions
from tfdist._compat.tensorflow_datasets import origins
from tfdist.errors import TfdistError

if TYPE_CHECKING:
    from tfdist.data.reading.record_reader import RecordReader

BEGIN, BEGUN, SEEK, NOTE, END, RUNS, RECORDS, CAREFUL_RECORDS = (
    f"data.{name}" for name in ("begin", "begun", "seek", "note", "end", "runs", "records", "careful_records")
)
_ID_BYTES = 32

_own: weakref.WeakValueDictionary[bytes, RecordReader] = weakref.WeakValueDictionary()
_others: dict[bytes, RecordReader] = {}
_of_datasets: weakref.WeakKeyDictionary[Any, RecordReader] = weakref.WeakKeyDictionary()
_whole: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.Lock()
_last_error: list[TfdistError] = []


def add(reader: RecordReader) -> bytes:
    """Makes a reader known, and returns its key."""
    key = uuid.uuid4().hex.encode() + reader.options.to_json().encode()
    _own[key] = reader
    return key


def key_of(reader: RecordReader) -> bytes:
    """What a reader of this process is known by in others."""
    return next(key for key, one in _own.items() if one is reader)


def keep_whole(dataset: Any) -> None:
    """Notes that a dataset is all that a reader reads, a step an element."""
    _whole.add(dataset)


def is_whole(dataset: Any) -> bool:
    """Whether it is such a dataset."""
    return dataset in _whole


def keep(reader: RecordReader, dataset: Any) -> None:
    """Keeps a reader as long as the dataset that everything else is made from."""
    _of_datasets[dataset] = reader


def readers_of(dataset: Any) -> list[RecordReader]:
    """The readers that a dataset reads with, through whatever transformations."""
    found = (_of_datasets.get(one) for one in origins(dataset))
    return list({id(one): one for one in found if one is not None}.values())


def readers_of_process() -> list[RecordReader]:
    """All readers that data sets of this process read with."""
    return list(_own.values())


def take_error() -> TfdistError | None:
    """The error that reading ended with, once; TensorFlow makes another of it that hides what went wrong."""
    return _last_error.pop() if _last_error else None


def keep_error(error: TfdistError) -> None:
    """Keeps what reading ends with, for `take_error`."""
    _last_error[:] = [error]


def _reader(key: bytes) -> RecordReader:
    reader = _own.get(key) or _others.get(key)
    if reader is None:
        with _lock:
            if key not in _others:
                # A process that only trains on other data never comes here, and starts faster without them.
                from tfdist.data.reading.read_options import ReadOptions
                from tfdist.data.reading.record_reader import RecordReader

                _others[key] = RecordReader(ReadOptions.from_json(key[_ID_BYTES:].decode()))
            reader = _others[key]
    return reader


def _begin(key: bytes) -> list[Any]:
    epoch, step = _reader(key).position.begin()
    return [np.int64(epoch), np.int64(step)]


def _seek(key: bytes, epoch: Any, step: Any) -> list[Any]:
    _reader(key).position.move_to(int(epoch), int(step))
    return [np.int64(0)]


def _end(key: bytes) -> list[Any]:
    _reader(key).position.ended_early()
    return [np.int64(0)]


def _begun(key: bytes) -> list[Any]:
    epoch, step = _reader(key).position.begun
    return [np.int64(epoch), np.int64(step)]


def _note(key: bytes, epoch: Any, step: Any, behind: Any) -> list[Any]:
    _reader(key).note_handed_out(int(epoch), range(int(step), int(behind)))
    return [np.int64(0)]


def _runs(key: bytes, epoch: Any, step: Any) -> list[Any]:
    try:
        files, offsets, counts, lengths, splits = _reader(key).runs(int(epoch), int(step))
    except TfdistError as error:
        keep_error(error)
        raise
    return [_bytes_array([file.encode() for file in files]), offsets, counts.astype(np.int64), lengths, splits]


def _records(key: bytes, epoch: Any, step: Any) -> list[Any]:
    records, splits = _reader(key).records(int(epoch), int(step), careful=False)
    return [_bytes_array(records), splits.astype(np.int64)]


def _careful_records(key: bytes, epoch: Any, step: Any) -> list[Any]:
    try:
        records, splits = _reader(key).records(int(epoch), int(step), careful=True)
    except TfdistError as error:
        keep_error(error)
        raise
    return [_bytes_array(records), splits.astype(np.int64)]


def _bytes_array(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


for _name, _function in (
    (BEGIN, _begin),
    (BEGUN, _begun),
    (SEEK, _seek),
    (END, _end),
    (NOTE, _note),
    (RUNS, _runs),
    (RECORDS, _records),
    (CAREFUL_RECORDS, _careful_records),
):
    py_functions.register(_name, _function)
