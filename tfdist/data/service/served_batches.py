"""Reading by the data workers of a tf.data service, in the order of reading without them.

Words: the *dispatcher* deals work out to *data workers*, processes that read, parse, decode and augment; the *consumer*
is the training task. `tfdist launch --data_workers=N` starts the first two and tells the tasks by TFDIST_DATA_SERVICE.

Order of events in a pass
    1. The consumer asks its reader for epoch and first step, makes the data set of just this pass, numbers of chunks
       followed by the functions that make them batches, and registers it with the dispatcher. So the data workers know
       the epoch by the data set itself, and a pass that is given up or begins in the middle needs no word.
    2. The dispatcher deals the chunks out one by one (ShardingPolicy.DYNAMIC) to data workers, which come and go.
    3. Each batch comes back with its step, serialized. A thread (`served_pass.ServedPass`) keeps what is ahead of its
       turn; the pipeline asks for step by step. A batch that came twice or late is dropped, one that doesn't come
       within PATIENCE_SECONDS is read by the consumer.

    | what happened                            | what follows                                                      |
    |------------------------------------------|-------------------------------------------------------------------|
    | a data worker died, or hangs             | what it had is read by the consumer; the others go on             |
    | a data worker came back                  | the dispatcher gives it chunks again                              |
    | all data workers died                    | the consumer reads, until one is back                             |
    | the dispatcher can't be reached          | a DataError after DEADLINE_SECONDS                                |

So every record is used exactly once an epoch, as TensorFlow's own service, which loses a dead worker's chunks, doesn't
promise; and a position in the middle of an epoch means the same as without the service.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdist._compat import tensorflow_py_functions as py_functions
from tfdist.data.service import served_pass

ENVIRONMENT = "TFDIST_DATA_SERVICE"
_ADDRESS = re.compile(rf"{served_pass.PREFIX}.+:[0-9]+")

Batches = Callable[[tf.data.Dataset], tf.data.Dataset]


def address_of(data_service: str | bool | None) -> str | None:
    """The address of the service to read with, or None.

    Args:
        data_service: As in `read_tfrecords`.

    Raises:
        ValueError: If it's no address.
        DataError: If nobody answers there within `DEADLINE_SECONDS`.
    """
    address = os.environ.get(ENVIRONMENT) if data_service is None else data_service
    if not address:
        return None
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise ValueError(
            f"data_service must be grpc://HOST:PORT, False, or None for the one in {ENVIRONMENT}. "
            f"Received: data_service={address!r}. Correct the address."
        )
    served_pass.wait_for(address)
    return address


class ServedBatches:
    """Batches that data workers make.

    Args:
        address: Of the dispatcher.
        batches: Turns numbers of first steps, (epoch, step), into finished batches, (epoch, step, batch); in whatever
            process.
        num_steps: Of an epoch.
        chunk_steps: Steps that are read together.
        batch_bytes: About how large a batch is.
    """

    def __init__(self, address: str, batches: Batches, num_steps: int, chunk_steps: int, batch_bytes: float) -> None:
        self._address, self._batches = address, batches
        self._num_steps, self._chunk = num_steps, chunk_steps
        self._spec = batches(_numbers(tf.constant(0, tf.int64), 0, 1, 1)).element_spec[2]
        self._components = tf.nest.flatten(self._spec, expand_composites=True)
        window = max(served_pass.window_of(batch_bytes), 2 * chunk_steps)
        self._source = served_pass.Source(address, tf.function(self._served), num_steps, window)
        self._key = served_pass.add(self._source)

    def of_pass(self, epoch: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        """The batches of an epoch from a step on, in order, as (epoch, step, batch); called in a graph."""
        number = self._call(served_pass.BEGIN, [epoch, first], tf.int64)
        steps = tf.data.Dataset.range(first, self._num_steps)
        rows = steps.map(lambda step: (step, self._call(served_pass.ROW, [number, step], tf.string, rank=1)))
        whole = rows.flat_map(lambda step, row: self._complete(epoch, step, row))
        return whole.map(self._unpack, num_parallel_calls=tf.data.AUTOTUNE)

    def _call(self, name: str, inputs: list[tf.Tensor], dtype: tf.DType, rank: int = 0) -> tf.Tensor:
        (result,) = py_functions.call(name, [tf.constant(self._key), *inputs], [dtype], stateful=True)
        return tf.ensure_shape(result, [None] * rank)

    def _served(self, epoch: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        distribute = tf.data.experimental.service.distribute(
            processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
            service=self._address,
            compression=None,
        )
        with warnings.catch_warnings():  # that options can't be read in a graph
            warnings.simplefilter("ignore", UserWarning)
            return self._packed(_numbers(epoch, first, self._num_steps, self._chunk)).apply(distribute)

    def _packed(self, numbers: tf.data.Dataset) -> tf.data.Dataset:
        """(step, a string for each component) of the batches that begin at these numbers."""

        def pack(epoch: tf.Tensor, step: tf.Tensor, batch: Any) -> Any:
            parts = tf.nest.flatten(batch, expand_composites=True)
            return step, tf.stack([tf.io.serialize_tensor(part) for part in parts])

        return self._batches(numbers).map(pack, num_parallel_calls=tf.data.AUTOTUNE)

    def _complete(self, epoch: tf.Tensor, step: tf.Tensor, row: tf.Tensor) -> tf.data.Dataset:
        """The row, or if it has nothing the one that is made here."""
        is_here = tf.minimum(tf.shape(row, tf.int64)[0], 1)
        here = tf.data.Dataset.from_tensors((step, row)).take(is_here)
        missing = self._packed(_numbers(epoch, step, step + 1, 1)).take(1 - is_here)
        return here.concatenate(missing).map(lambda step, row: (epoch, step, row))

    def _unpack(self, epoch: tf.Tensor, step: tf.Tensor, row: tf.Tensor) -> Any:
        parts = [
            tf.ensure_shape(tf.io.parse_tensor(row[i], spec.dtype), spec.shape)
            for i, spec in enumerate(self._components)
        ]
        return epoch, step, tf.nest.pack_sequence_as(self._spec, parts, expand_composites=True)


def _numbers(epoch: tf.Tensor, first: Any, behind: Any, every: int) -> tf.data.Dataset:
    return tf.data.Dataset.range(first, behind, every).map(lambda step: (epoch, step))
