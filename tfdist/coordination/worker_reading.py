"""How a worker finds the steps that it was leased: in an iterator that it keeps between executions.

where the iterator is                      what is done
at the leased step                         nothing
before it, in the same pass                steps in between, which others were leased, are skipped
elsewhere, or nowhere in a new process     the pass is opened anew, at the step if the data is indexed
"""

from __future__ import annotations

import functools

import tensorflow as tf

from tfdist._compat import tensorflow_py_functions as py_functions
from tfdist._compat.keras_worker_variables import named_variable
from tfdist._compat.tensorflow_worker_datasets import DatasetText, NamedIterator
from tfdist.coordination.worker_data import WorkerData
from tfdist.data.reading.reader_calls import SEEK

_NUMBERS_BYTES = 56
#: Steps of indexed data; beyond, opening it anew is quicker.
_MOST_SKIPPED = 32


class WorkerReading:
    """Reads one lease; made while a worker's function is traced.

    Args:
        data: What is read.
        message: `LeasedWork.message`, a string scalar.
    """

    def __init__(self, data: WorkerData, message: tf.Tensor) -> None:
        self._data = data
        numbers = tf.io.decode_raw(tf.strings.substr(message, 0, _NUMBERS_BYTES), tf.int64)
        worker, self.number, *rest = (numbers[i] for i in range(7))
        self._pass, self._epoch, self._first, self.count, self._stream = rest
        self.worker = tf.cast(worker, tf.int32)
        self._filling = tf.strings.substr(message, _NUMBERS_BYTES, -1)
        self._iterator = NamedIterator(data.name, data.element_spec)
        #: Pass, stream and step that the iterator is at, and whether it is there at all.
        self._at = named_variable([3], tf.int64, f"{data.name}/at")
        self._go_to_first()

    def next(self) -> tf.experimental.Optional:
        """The next batch, if there is one."""
        return self._iterator.next()

    def end(self, steps: tf.Tensor) -> None:
        """Note how many steps were taken."""
        step = self._first + tf.cast(steps, tf.int64)
        self._at.assign(tf.stack([self._pass, self._stream, step]), read_value=False)

    def _go_to_first(self) -> None:
        known = tf.raw_ops.VarIsInitializedOp(resource=self._at.handle)
        at = tf.cond(known, self._at.read_value, lambda: tf.constant([-1, -1, -1], tf.int64))
        ahead = self._first - at[2]
        most = _MOST_SKIPPED if self._data.is_indexed else tf.int64.max
        is_near = tf.reduce_all([at[0] == self._pass, at[1] == self._stream, ahead >= 0, ahead <= most])
        tf.cond(is_near, lambda: tf.constant(0), self._open)
        self._skip(tf.where(is_near, ahead, tf.zeros_like(ahead) if self._data.is_indexed else self._first))

    def _open(self) -> tf.Tensor:
        first = self._first if self._data.is_indexed else tf.zeros([], tf.int64)
        for key in self._data.reader_keys:
            py_functions.call(SEEK, [tf.constant(key), self._epoch, first], [tf.int64], stateful=True)
        begins = [functools.partial(self._begin, text) for text in self._data.texts]
        return begins[0]() if len(begins) == 1 else tf.switch_case(tf.cast(self._stream, tf.int32), begins)

    def _begin(self, text: DatasetText) -> tf.Tensor:
        # Read on while the worker computes.
        dataset = text.open(self._filling).prefetch(tf.data.AUTOTUNE)
        if not text.autotunes:
            # The end of an iterator that is tuned now and then waits until it would be tuned again, up to a minute:
            # whoever cancels the thread wakes it before it can see that it's cancelled.
            options = tf.data.Options()
            options.autotune.enabled = False
            dataset = dataset.with_options(options)
        self._iterator.begin(dataset)
        return tf.constant(0)

    def _skip(self, steps: tf.Tensor) -> None:
        def body(i: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return i + 1, self._iterator.next().has_value()

        start = (tf.zeros([], tf.int64), tf.constant(True))
        tf.while_loop(lambda i, goes_on: tf.logical_and(i < steps, goes_on), body, start)
