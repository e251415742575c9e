"""The order in which a worker reads, epoch by epoch: options and share turned into calls of `sampling`."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict

import numpy as np

from tfdist.data.files.shards import Shards
from tfdist.data.reading import sampling
from tfdist.data.reading.read_options import ReadOptions
from tfdist.data.sharding import Share

# A local shuffle's window by default: as many records as a shuffle buffer often has, but no more than this in memory.
_BUFFER_RECORDS, _BUFFER_BYTES = 16_384, 128 << 20
# Sequential reads of this size are as fast as larger ones, measured on local disks.
_BLOCK_BYTES = 1 << 20
# A window mixes at least this many blocks, or records of one block would stay together.
_BLOCKS_OF_WINDOW = 16
# The epoch under way and the next, which prefetching may have begun.
_KEPT = 2


class Orders:
    """Orders of one worker's records.

    Attributes:
        buffer: Records of a local shuffle's window.
        blocks: First records and the ones behind the last, of the blocks that a local shuffle permutes.
        blocks_of_window: How many blocks a window may touch.
    """

    def __init__(self, options: ReadOptions, shards: Shards, share: Share) -> None:
        self._options, self._shards, self._share = options, shards, share
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        fitting = min(_BUFFER_RECORDS, max(int(_BUFFER_BYTES / shards.mean_bytes), 1))
        self.buffer = options.shuffle_buffer or fitting

    @property
    def vary(self) -> bool:
        """Whether epochs differ."""
        return bool(self._options.shuffle or self._options.group_by_length or self._options.weights)

    @functools.cached_property
    def runs(self) -> tuple[list[int], list[int]]:
        """Runs of consecutive records of one file that this worker may read: first, and the one behind the last."""
        borders = self._shards.first_ids
        starts, stops = [], []
        for start, stop in self._share.ranges:
            inside = borders[(borders > start) & (borders < stop)].tolist()
            cuts = sorted({start, *inside, stop})
            starts += cuts[:-1]
            stops += cuts[1:]
        return starts, stops

    @functools.cached_property
    def blocks(self) -> tuple[np.ndarray, np.ndarray]:
        """See class; compressed files can't be read in parts, so theirs are whole."""
        if self._shards.compression:
            size = self._shards.num_records
        else:
            size = max(min(int(_BLOCK_BYTES / self._shards.mean_bytes), self.buffer // _BLOCKS_OF_WINDOW), 1)
        return sampling.blocks(*self.runs, size)

    @property
    def blocks_of_window(self) -> int:
        """See class."""
        starts, stops = self.blocks
        return int(np.searchsorted(np.cumsum(np.sort(stops - starts)), self.buffer)) + 2

    def of(self, epoch: int) -> np.ndarray:
        """Numbers of records in the order of an epoch, int64: this worker's, or all where batches are shared."""
        key = epoch if self.vary else 0
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._make(epoch)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return self._kept[key]

    def _make(self, epoch: int) -> np.ndarray:
        options = self._options
        if options.weights:
            ids = self._mixed(epoch)
        elif options.shuffle == "global":
            ids = sampling.permutation(self._shards.num_records, sampling.GLOBAL, options.seed, epoch)
        elif options.shuffle == "local":
            # Where batches are shared, so is the order.
            worker = 0 if self._share.rule == "batches" else options.shard.index
            ids = sampling.local_order(*self.blocks, self.buffer, options.seed, epoch, worker)
        else:
            ids = sampling.ranges(*np.asarray(self._share.ranges, np.int64).reshape(-1, 2).T)
        if not options.group_by_length:
            return ids
        rows = options.batch_size if self._share.rule in ("batches", "all") else self._share.rows
        lengths = self._shards.lengths(ids)
        return sampling.grouped_by_length(ids, lengths, rows, options.group_by_length, options.seed, epoch)

    def _mixed(self, epoch: int) -> np.ndarray:
        firsts = self._shards.source_ids
        shares = sampling.proportions(self._options.weights, self._shards.num_records)
        shuffle = self._options.shuffle == "global"
        return sampling.mixed_order(firsts[:-1], np.diff(firsts).tolist(), shares, shuffle, self._options.seed, epoch)
