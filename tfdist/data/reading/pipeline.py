"""The tf.data graph that reads one data set.

The way of one chunk, a few steps that are read together: the number of its first step -> its serialized records, by
TensorFlow's own reader where they lie in runs, else by Python -> parsed together -> cut into steps -> finished (padded,
decoded, the label apart) -> prefetched -> handed out, which is noted.

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
from tfdist.data.reading import reader_calls as calls
from tfdist.data.reading.augmentation import Augmentation
from tfdist.data.reading.parsed_steps import cut_step
from tfdist.data.reading.record_reader import RecordReader
from tfdist.data.rows import mark_share
from tfdist.data.service.served_batches import ServedBatches

_READ_BUFFER_BYTES = 1 << 18
# Not AUTOTUNE, which doesn't count what a data set within a function takes.
_PARALLEL_READS = max(2, min(8, os.cpu_count() or 2))
# Of the batches that are handed out, at most so many are noted at once: each note takes Python's lock.
_NOTED_STEPS = 32


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
        batches = batches if self._reader.share.rule == "all" else mark_share(batches)
        calls.keep_whole(batches)
        return batches

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

        read = numbers.interleave(
            self._read, cycle_length=_PARALLEL_READS, num_parallel_calls=_PARALLEL_READS, deterministic=True
        )
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

    def _read(self, epoch: tf.Tensor, step: tf.Tensor) -> tf.data.Dataset:
        """One element: (epoch, step, what was parsed, the bounds of steps)."""
        careful = tf.data.Dataset.from_tensors((epoch, step)).map(self._read_carefully)
        chunk = self._read_quickly(epoch, step).ignore_errors().concatenate(careful).take(1)
        return chunk.map(lambda parsed, splits: (epoch, step, parsed, splits))

    def _read_quickly(self, epoch: tf.Tensor, step: tf.Tensor) -> tf.data.Dataset:
        chunk = tf.data.Dataset.from_tensors((epoch, step))
        if not self._reader.reads_runs:
            return chunk.map(lambda *at: self._parse(*self._call(calls.RECORDS, [*at], [tf.string, tf.int64])))
        types = [tf.string, tf.int64, tf.int64, tf.int32, tf.int64]
        files, offsets, counts, lengths, splits = self._call(calls.RUNS, [epoch, step], types)
        files, offsets, counts = (tf.ensure_shape(one, [None]) for one in (files, offsets, counts))
        # Through the buffer all bytes are copied once more.
        buffer = 0 if self._reader.are_large else _READ_BUFFER_BYTES
        if self._reader.runs_end_with_files:
            records = _records(files, offsets, buffer).take(tf.reduce_sum(counts))
        else:
            runs = tf.data.Dataset.from_tensor_slices((files, offsets, counts))
            records = runs.flat_map(lambda file, offset, count: _records([file], [offset], buffer).take(count))
        # A batch that isn't whole is left out, and so read with care: a file ended before. So is one without records.
        batch = records.batch(tf.maximum(tf.size(lengths, out_type=tf.int64), 1), drop_remainder=True)
        return batch.map(lambda records: self._parse(_checked(records, lengths), splits))

    def _read_carefully(self, epoch: tf.Tensor, step: tf.Tensor) -> Any:
        return self._parse(*self._call(calls.CAREFUL_RECORDS, [epoch, step], [tf.string, tf.int64]))

    def _parse(self, records: tf.Tensor, splits: tf.Tensor) -> Any:
        records.set_shape([None])
        splits.set_shape([None])
        parsed = tf.io.parse_example(records, self._reader.specs)
        for name, feature in self._reader.features.items():
            feature.check(name, parsed)
        return parsed, splits

    def _finish(self, epoch: tf.Tensor, step: tf.Tensor, parsed: Any) -> Any:
        reader = self._reader
        features = {name: one.finish(name, parsed) for name, one in reader.features.items()}
        if reader.options.drop_remainder and reader.options.on_corrupt == "raise":
            features = {name: _with_rows(value, reader.rows) for name, value in features.items()}
        features = self._augment(epoch, step, features)
        label = reader.options.label
        return epoch, step, features if label is None else (features, features.pop(label))

    def _handed_out(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The batches alone; how many were taken is noted, every few and with the last of a pass.

        Each batch is zipped with an element of another data set, which nearly always is a constant: a function for each
        batch would take longer than all else that a small batch takes.
        """

        def notes_of_pass(_: tf.Tensor) -> tf.data.Dataset:
            epoch, first = self._call(calls.BEGUN, [], [tf.int64, tf.int64], stateful=True)
            epoch, first = (tf.ensure_shape(one, []) for one in (epoch, first))
            return tf.data.Dataset.range(first, self._steps, every).flat_map(lambda step: notes(epoch, step))

        def notes(epoch: tf.Tensor, step: tf.Tensor) -> tf.data.Dataset:
            behind = tf.minimum(step + every, self._steps)
            last = tf.data.Dataset.from_tensors(behind).map(lambda behind: noted(epoch, step, behind))
            return tf.data.Dataset.from_tensors(tf.zeros([], tf.int64)).repeat(behind - step - 1).concatenate(last)

        def noted(*steps: tf.Tensor) -> tf.Tensor:
            (zero,) = self._call(calls.NOTE, [*steps], [tf.int64], stateful=True)
            return tf.ensure_shape(zero, [])

        every = max(1, min(_NOTED_STEPS, self._steps // _NOTED_STEPS))
        # Asked for behind a batch, so a pass's notes begin when its first batch is there; the batches end first.
        notes_of_passes = tf.data.Dataset.range(1).flat_map(notes_of_pass).repeat()
        # TensorFlow's own prefetching behind this would have batches noted that nobody has asked for.
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        zipped = tf.data.Dataset.zip((batches, notes_of_passes))
        # Synchronous, or TensorFlow would make it parallel, and ask for batches before they're wanted.
        return zipped.map(lambda batch, _: batch[2], synchronous=True).with_options(options)


def _records(files: Any, offsets: Any, buffer_bytes: int) -> tf.data.Dataset:
    """All records of files, from a byte of each on, by TensorFlow's own reader."""
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=files, compression_type="", buffer_size=buffer_bytes, byte_offsets=offsets, metadata=b""
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


def _checked(records: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Whether they're those that were looked for, which an index that is out of date doesn't find."""
    same = tf.debugging.assert_equal(tf.strings.length(records), lengths)
    with tf.control_dependencies([same]):
        return tf.identity(records)


def _with_rows(value: Any, rows: int) -> Any:
    return tf.ensure_shape(value, [rows, *value.shape[1:]]) if isinstance(value, tf.Tensor) else value
