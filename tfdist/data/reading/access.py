"""From where a worker takes the bytes of its records, by what it reads and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfdist.data.files.byte_ranges import Blocks, Expanded, Files, Ranges, local_copies
from tfdist.data.files.shards import Shards
from tfdist.data.reading.orders import Orders
from tfdist.data.reading.read_options import ReadOptions
from tfdist.errors import DataError

MEMORY = "memory"
# What is read in random order is kept in memory up to this size: reading small records one by one costs a system call
# each. Compressed files are expanded into memory up to this size.
_SMALL_BYTES = 256 << 20


def open_ranges(options: ReadOptions, shards: Shards, orders: Orders) -> tuple[Sequence[str], Ranges, bool]:
    """The files to read from, their bytes, and whether the files can be read as plain TFRecord files.

    Raises:
        DataError: If compressed files would have to be read at random.
    """
    paths, compression = shards.paths, shards.compression
    if options.cache not in (None, MEMORY):
        paths, compression = local_copies(paths, compression, str(options.cache)), ""  # type: ignore[assignment]
    source: Ranges = Expanded(paths, compression) if compression else Files(paths)
    keep = _blocks_to_keep(options, shards, orders, compression)
    if keep == 0:
        return paths, source, options.cache != MEMORY
    by_window = options.shuffle == "local" and not compression and keep is not None
    starts, stops = orders.blocks if by_window else (np.asarray(one, np.int64) for one in orders.runs)
    return paths, _blocks(source, shards, starts, stops, keep), not compression and options.cache != MEMORY


def _blocks_to_keep(options: ReadOptions, shards: Shards, orders: Orders, compression: str) -> int | None:
    """How many blocks to keep in memory: 0 is to read without blocks, None is all."""
    is_small = shards.mean_bytes * shards.num_records <= _SMALL_BYTES
    if options.cache == MEMORY or (orders.vary and is_small):
        return None
    if options.shuffle == "local":
        return 2 * orders.blocks_of_window
    if not compression:
        return 0
    if not orders.vary:
        # Threads may be at the end of one file and in the next.
        return 4
    raise DataError(
        f"Compressed files can't be read at random. Received: {len(shards.paths)} {compression} files of "
        f"{shards.mean_bytes * shards.num_records / 1e6:,.0f} MB uncompressed, shuffle={options.shuffle!r}. Use "
        "shuffle='local', cache='memory', or cache=DIRECTORY for uncompressed copies."
    )


def _blocks(source: Ranges, shards: Shards, starts: np.ndarray, stops: np.ndarray, keep: int | None) -> Blocks:
    """Blocks of bytes, from their first records and the ones behind the last."""
    order = np.argsort(starts, kind="stable")
    starts, stops = starts[order], stops[order]
    files, first, _ = shards.locate(starts)
    _, _, end = shards.locate(stops - 1)
    return Blocks(source, files, first, end, keep)
