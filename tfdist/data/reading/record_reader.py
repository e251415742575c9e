"""Everything that one process knows and does to read one data set; the pipeline's operations call it.

Which records a step has is a function of options, epoch and step, so any step can be read at any time by any thread,
and by any process that is told the options.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tfdist.data.features import Feature, as_features, features_from_json
from tfdist.data.files import framing
from tfdist.data.files.record_check import content_check
from tfdist.data.files.shards import Shards
from tfdist.data.reading.access import open_ranges
from tfdist.data.reading.fetching import Fetcher, Skipped
from tfdist.data.reading.flow import FlowMeter
from tfdist.data.reading.orders import Orders
from tfdist.data.reading.parsed_steps import can_be_cut
from tfdist.data.reading.read_options import ReadOptions
from tfdist.data.reading.read_position import Position
from tfdist.data.sharding import share_of
from tfdist.errors import DataError
from tfdist.log import logger

# Steps are read together until they have this many records or bytes: a reading takes 0.3 ms besides.
_CHUNK_RECORDS, _CHUNK_BYTES, _CHUNK_STEPS = 1024, 4 << 20, 64

# From here on, opening a file for each record costs less than Python's copies of its bytes.
_LARGE_BYTES = 32 << 10


class RecordReader:
    """Reads the records of one worker's steps.

    Attributes:
        options: How.
        shards: From which files.
        share: Which records.
        features: What is in a record.
        position: Which step comes next.
        flow: How fast they go.
        skipped: Which records were left out.
        are_large: Whether records are large.
        reads_runs: Whether TensorFlow reads the records: from uncompressed files, if a step's lie in few runs or are
            large. Else Python does.
        runs_end_with_files: Whether of the runs that follow one another all but the last end with their file.
        chunk_steps: How many steps are read together.
    """

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        skips = options.on_corrupt == "skip"
        self.shards = Shards(options.patterns, compression=options.compression, skip=skips, apart=bool(options.weights))
        self.features = _features(options, self.shards)
        by_batch = options.shuffle == "global" or options.weights
        self.share = share_of(
            self.shards.first_ids.tolist(),
            options.shard,
            options.batch_size,
            rule="batches" if by_batch else options.sharding,
            drop_remainder=options.drop_remainder,
        )
        _check_steps(options, self.shards, self.share.num_steps)
        self.position = Position(self.share.num_steps)
        self.flow = FlowMeter()
        self.skipped = Skipped(options.max_skipped if skips else None)
        for problem in self.shards.problems:
            self.skipped.add(problem)
        self._orders = Orders(options, self.shards, self.share)
        self._paths, ranges, is_plain = open_ranges(options, self.shards, self._orders)
        self._fetcher = Fetcher(self.shards, ranges, self.skipped)
        self.are_large = self.shards.mean_bytes >= _LARGE_BYTES
        in_order = not self._orders.vary
        self.reads_runs = is_plain and (in_order or self.are_large)
        self.runs_end_with_files = in_order and (self.share.rule != "batches" or options.shard.num_shards == 1)
        self.chunk_steps = self._chunk_steps()

    @functools.cached_property
    def specs(self) -> dict[str, Any]:
        """What `tf.io.parse_example` is to look for."""
        return {key: spec for name, one in self.features.items() for key, spec in one.parsing(name).items()}

    @property
    def rows(self) -> int:
        """Rows of a full batch of this worker."""
        return self.options.batch_size if self.share.rule == "all" else self.share.rows

    def _chunk_steps(self) -> int:
        if not can_be_cut(self.specs):
            return 1
        by_bytes = int(_CHUNK_BYTES / (self.rows * self.shards.mean_bytes))
        return max(1, min(_CHUNK_RECORDS // self.rows, by_bytes, _CHUNK_STEPS, self.share.num_steps))

    def runs(self, epoch: int, step: int) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Where the records of a chunk of steps lie.

        Returns:
            File, first byte and number of records of each run; bytes of each record's data, int32; bounds of the steps.
        """
        ids, splits = self._chunk(epoch, step)
        shards, starts, ends = self.shards.locate(ids)
        is_first = np.ones(len(ids), bool)
        is_first[1:] = (starts[1:] != ends[:-1]) | (shards[1:] != shards[:-1])
        first = np.flatnonzero(is_first)
        used = shards[first].tolist()
        for shard in set(used):
            self.shards.check_unchanged(shard)
        lengths = (ends - starts - framing.FRAME_BYTES).astype(np.int32)
        return [self._paths[shard] for shard in used], starts[first], np.diff([*first, len(ids)]), lengths, splits

    def records(self, epoch: int, step: int, *, careful: bool) -> tuple[list[bytes], np.ndarray]:
        """The records of a chunk of steps, serialized, and the steps' bounds.

        Args:
            epoch, step: The first step.
            careful: Whether to look into each record for why it can't be parsed.

        Raises:
            CorruptRecordError: At a record that is broken or isn't what `features` says, if none may be left out.
            DataError: If a file is gone or changed, or too many records are broken.
        """
        ids, splits = self._chunk(epoch, step)
        for shard in np.unique(self.shards.locate(ids)[0]).tolist():
            self.shards.check_unchanged(shard)
        found, is_whole = self._fetcher.fetch(ids, self._check if careful else None)
        if len(found) < len(ids):
            splits = np.concatenate([[0], np.cumsum(is_whole)])[splits]
        return found, splits

    @functools.cached_property
    def _check(self) -> Callable[[bytes], str]:
        return content_check(self.features)

    def _chunk(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        order = self._orders.of(epoch)
        steps = range(step, min(step + self.chunk_steps, self.share.num_steps))
        bounds = [self.share.bounds(one) for one in steps]
        splits = np.cumsum([0, *(end - begin for begin, end in bounds)])
        return np.concatenate([order[begin:end] for begin, end in bounds]), splits

    def note_handed_out(self, epoch: int, steps: range) -> None:
        """Some more batches were taken."""
        bounds = [self.share.bounds(step) for step in steps]
        self.flow.add(len(steps), sum(end - begin for begin, end in bounds))
        self.position.handed_out(epoch, steps[-1])

    def log(self) -> None:
        """Says what is read, and by which rule."""
        share, options = self.share, self.options
        rules = {
            "all": "all of them",
            "files": f"whole files, {len(share.ranges)} of {len(self.shards.paths)}",
            "records": "a run of records of them",
            "batches": "its rows of each global batch",
        }
        worker = f"; worker {options.shard.index} of {options.shard.num_shards} reads " if share.rule != "all" else ", "
        logger.info(
            "input: %s records in %d files%s%s; %d steps of %d rows, shuffle %s",
            f"{self.shards.num_records:,}",
            len(self.shards.paths),
            worker,
            rules[share.rule],
            share.num_steps,
            options.batch_size,
            options.shuffle or "off",
        )


def _features(options: ReadOptions, shards: Shards) -> dict[str, Feature]:
    described = shards.features if options.features is None else options.features
    if described is None:
        raise ValueError(
            f"features must be given for files without an index. Received: features=None, {shards.paths[0]}. Say what "
            'a record holds, for example features={"label": tfdist.data.Tensor((), "int64")}.'
        )
    features = as_features(features_from_json(described))
    if options.label is not None and options.label not in features:
        raise ValueError(
            f"label must be one of the features, {sorted(features)}. Received: label={options.label!r}. "
            "Add it to features, or name another one."
        )
    _check_features(options, shards)
    return features


def _check_features(options: ReadOptions, shards: Shards) -> None:
    """What the index says must not contradict what is asked for; found here and not at the first batch."""
    known = shards.features
    if known is None or options.features is None:
        return
    missing = sorted(set(options.features) - set(known))
    if missing and all(one["kind"] != "tf.io" for one in known.values()):
        raise DataError(
            f"features must be among those of the index, {sorted(known)}. Received: {missing} besides. "
            "Leave out `features` to read all that the files have."
        )


def _check_steps(options: ReadOptions, shards: Shards, num_steps: int) -> None:
    if not num_steps:
        raise DataError(
            f"With drop_remainder there must be enough records for one batch. Received: {shards.num_records} records, "
            f"batch_size={options.batch_size}. Use a smaller batch, or leave out drop_remainder."
        )
