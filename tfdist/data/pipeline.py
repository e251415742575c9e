"""The tf.data graph that reads one data set.

The way of one chunk, a few steps that are read together: the number of its first step -> its serialized records, by
TensorFlow's own reader where they lie in runs, else by Python -> parsed together -> cut into steps -> finished (padded,
decoded, the label apart) -> prefetched -> handed out, with the wait measured.

Reading and parsing are tried first without looking for faults. Only where that fails is the same chunk read again with
care, by which each fault gets its record's number and place, and is raised or left out.

A pass over the data set is one epoch, or what is left of it after a restart. Its length is known beforehand, which
`fit` needs for its progress bar; that a pass may be shorter is no error: it is `repeat().take(steps)` of one that gives
nothing when it's asked again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfdist._compat import tensorflow_py_functions as py_functions
from tfdist.data import reader_calls as calls
from tfdist.data.augmentation import Augmentation
from tfdist.data.parsed_steps import cut_step
from tfdist.data.record_reader import RecordReader
from tfdist.data.rows import mark_share
from tfdist.data.service import ServedBatches

_READ_BUFFER_BYTES = 1 << 18
# Not AUTOTUNE, which doesn't count what a data set within a function takes, and read large records one chunk at a time.
_PARALLEL_READS = max(2, min(8, os.cpu_count() or 2))
# Of the batches that are handed out, how many are noted at once: each note takes Python's lock.
_NOTED_STEPS = 16


def build(
    reader: RecordReader, augment: Mapping[str, Any] | None = None, service: str | None = None
) -> tf.data.Dataset:
    """Batches of what a reader reads.

    Args:
        reader: Reads.
        augment: Layers for features, see `Augmentation`.
        service: Address of the tf.data service that makes the batches, see `service`.
    """
    return _Pipeline(reader, augment, service).build()


class _Pipeline:
    def __init__(self, reader: RecordReader, augment: Mapping[str, Any] | None, service: str | None) -> None:
        self._reader, options = reader, reader.options
        self._augment = Augmentation(augment, list(reader.features), seed=options.seed, worker=options.shard.index)
        self._steps = reader.share.num_steps
        self._key = calls.add(reader)
        self._service = service

    def build(self) -> tf.data.Dataset:
        source = tf.data.Dataset.range(1)
        calls.keep(self._reader, source)
        steps = self._steps_of_pass(source)
        batches = steps.concatenate(self._end_of_pass(steps)).repeat().take(self._steps)
        if self._service is None:
            batches = self._finished(batches)
        batches = self._handed_out(batches.prefetch(tf.data.AUTOTUNE))
        # The whole data set is left unmarked: a strategy takes it as global batches and cuts them.
        return batches if self._reader.share.rule == "all" else mark_share(batches)

    def _call(self, name: str, inputs: list[Any], types: list[tf.DType], *, stateful: bool = False) -> Any:
        return py_functions.call(name, [tf.constant(self._key), *inputs], types, stateful=stateful)

    def _steps_of_pass(self, source: tf.data.Dataset) -> tf.data.Dataset:
        """(epoch, step, what was parsed), or finished batches if a service makes them."""

        def begin(_: tf.Tensor) -> tf.data.Dataset:
            epoch, first = self._call(calls.BEGIN, [], [tf.int64, tf.int64], stateful=True)
            epoch.set_shape([])
            first.set_shape([])
            if served is not None:
                return served.of_pass(epoch, first)
            chunk = self._reader.chunk_steps
            return tf.data.Dataset.range(first, self._steps, chunk).map(lambda step: (epoch, step))

        served = None if self._service is None else self._served(self._service)
        return source.flat_map(begin) if served is not None else self._read_steps(source.flat_map(begin))

    def _served(self, address: str) -> ServedBatches:
        reader = self._reader
        batch_bytes = reader.rows * reader.shards.mean_bytes
        return ServedBatches(
            address,
            lambda numbers: self._finished(self._read_steps(numbers)),
            self._steps,
            reader.chunk_steps,
            batch_bytes,
        )

    def _read_steps(self, numbers: tf.data.Dataset) -> tf.data.Dataset:
        """The steps of the chunks that begin at (epoch, step)."""

        def cut(epoch: tf.Tensor, step: tf.Tensor, parsed: Any, splits: tf.Tensor) -> tf.data.Dataset:
            def one(i: tf.Tensor) -> Any:
                return epoch, step + i, cut_step(parsed, self._reader.specs, splits[i], splits[i + 1])

            return tf.data.Dataset.range(tf.size(splits, out_type=tf.int64) - 1).map(one)

        read = numbers.map(self._read, num_parallel_calls=_PARALLEL_READS, deterministic=True)
        if self._reader.chunk_steps == 1:
            return read.map(lambda epoch, step, parsed, splits: (epoch, step, parsed))
        return read.flat_map(cut)

    def _finished(self, steps: tf.data.Dataset) -> tf.data.Dataset:
        return steps.map(self._finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _end_of_pass(self, steps: tf.data.Dataset) -> tf.data.Dataset:
        def end(_: int) -> tf.data.Dataset:
            (nothing,) = self._call(calls.END, [], [tf.int64], stateful=True)
            return steps.take(tf.reshape(nothing, []))

        return tf.data.Dataset.range(1).flat_map(end)

    def _read(self, epoch: tf.Tensor, step: tf.Tensor) -> Any:
        quick = tf.data.Dataset.from_tensors((epoch, step)).map(self._read_quickly).ignore_errors()
        careful = tf.data.Dataset.from_tensors((epoch, step)).map(self._read_carefully)
        parsed, splits = quick.concatenate(careful).take(1).get_single_element()
        return epoch, step, parsed, splits

    def _read_quickly(self, epoch: tf.Tensor, step: tf.Tensor) -> Any:
        if not self._reader.reads_runs:
            return self._parse(*self._call(calls.RECORDS, [epoch, step], [tf.string, tf.int64]))
        types = [tf.string, tf.int64, tf.int64, tf.int64]
        files, offsets, counts, splits = self._call(calls.RUNS, [epoch, step], types)
        runs = tf.data.Dataset.from_tensor_slices(
            tuple(tf.ensure_shape(one, [None]) for one in (files, offsets, counts))
        )
        total = tf.reduce_sum(counts)
        records = runs.flat_map(lambda *run: _records(*run)).batch(total).get_single_element()
        # The file may have ended before.
        whole = tf.debugging.assert_equal(tf.size(records, out_type=tf.int64), total)
        with tf.control_dependencies([whole]):
            return self._parse(tf.identity(records), splits)

    def _read_carefully(self, epoch: tf.Tensor, step: tf.Tensor) -> Any:
        return self._parse(*self._call(calls.CAREFUL_RECORDS, [epoch, step], [tf.string, tf.int64]))

    def _parse(self, records: tf.Tensor, splits: tf.Tensor) -> Any:
        records.set_shape([None])
        splits.set_shape([None])
        return tf.io.parse_example(records, self._reader.specs), splits

    def _finish(self, epoch: tf.Tensor, step: tf.Tensor, parsed: Any) -> Any:
        reader = self._reader
        features = {name: one.finish(name, parsed) for name, one in reader.features.items()}
        if reader.options.drop_remainder and reader.options.on_corrupt == "raise":
            features = {name: _with_rows(value, reader.rows) for name, value in features.items()}
        features = self._augment(epoch, step, features)
        label = reader.options.label
        return epoch, step, features if label is None else (features, features.pop(label))

    def _handed_out(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The batches alone; how many there were, and how long they were waited for, is noted."""
        asked = tf.data.Dataset.counter().map(lambda _: tf.timestamp())
        nothing = (tf.zeros([], tf.int64), tf.zeros([], tf.int64), tf.zeros([], tf.float64))
        is_first = tf.constant(True)

        def note(before: Any, element: Any) -> Any:
            asked_at, (epoch, step, batch) = element
            (steps, rows, seconds), is_first = before
            sums = steps + 1, rows + _num_rows(batch), seconds + tf.timestamp() - asked_at
            # The first at once: what it was waited for is another thing.
            now = is_first | (sums[0] >= _NOTED_STEPS) | (step == self._steps - 1)

            def noted() -> Any:
                types = [tf.int64]
                (zero,) = self._call(calls.NOTE, [epoch, step, *sums], types, stateful=True)
                zero = tf.reshape(zero, [])
                return zero, zero, tf.cast(zero, tf.float64)

            return (tf.cond(now, noted, lambda: sums), tf.constant(False)), batch

        noted_batches = tf.data.Dataset.zip((asked, batches)).scan((nothing, is_first), note)
        # TensorFlow's own prefetching behind this would have batches noted that nobody has asked for.
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        return noted_batches.with_options(options)


def _records(file: tf.Tensor, offset: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
    """Records of a file from a byte on, by TensorFlow's own reader."""
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[file], compression_type="", buffer_size=_READ_BUFFER_BYTES, byte_offsets=[offset], metadata=b""
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(count)


def _num_rows(batch: Any) -> tf.Tensor:
    leaf = tf.nest.flatten(batch)[0]
    if isinstance(leaf, tf.SparseTensor):
        return leaf.dense_shape[0]
    return tf.cast(leaf.nrows() if isinstance(leaf, tf.RaggedTensor) else tf.shape(leaf)[0], tf.int64)


def _with_rows(value: Any, rows: int) -> Any:
    return tf.ensure_shape(value, [rows, *value.shape[1:]]) if isinstance(value, tf.Tensor) else value
