"""In which order records are read: every order is a function of the seed and the epoch, and of nothing else.

- `global`: a uniform permutation of all records, the same on every worker, of which each takes its rows of each global
  batch. 8 bytes a record while the epoch lasts, 24 while it is drawn.
- `local`: a worker permutes blocks of consecutive records of its own share, then the records within windows of
  `buffer` records. Reads stay sequential; the mix is that of a shuffle buffer whose input comes in random order.
- grouped by length: batches of records of similar size, in random order.
- mixed: several sources in exact proportions.

Random numbers are those of Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), whose raw
stream NumPy keeps the same in all versions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MASK = (1 << 64) - 1
# What a key is for, so that one seed gives unrelated streams.
GLOBAL, BLOCKS, WINDOWS, BATCHES, SOURCES = range(5)


def random_keys(count: int, *key: int) -> np.ndarray:
    """Random uint64 [count] that depend on the key alone."""
    seed = np.random.SeedSequence([one & _MASK for one in key])
    return np.random.Philox(seed).random_raw(count)


def permutation(count: int, *key: int) -> np.ndarray:
    """A uniform permutation of range(count), int64, that depends on the key alone."""
    return np.argsort(random_keys(count, *key), kind="stable")


def local_order(starts: np.ndarray, stops: np.ndarray, buffer: int, *key: int) -> np.ndarray:
    """Blocks in random order, records shuffled within windows of `buffer`.

    Args:
        starts, stops: First record of each block, and the one behind its last; int64 [blocks].
        buffer: Records of a window.
        key: Seed, epoch, worker.
    """
    order = permutation(len(starts), BLOCKS, *key)
    ids = ranges(starts[order], stops[order])
    return ids[np.lexsort((random_keys(len(ids), WINDOWS, *key), np.arange(len(ids)) // buffer))]


def ranges(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """All numbers of several ranges one after another, int64."""
    counts = stops - starts
    behind = np.cumsum(counts)
    total = int(behind[-1]) if len(behind) else 0
    return np.arange(total) + np.repeat(starts - (behind - counts), counts)


def blocks(starts: Sequence[int], stops: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Ranges cut into blocks of at most `size`."""
    begin = [np.arange(a, b, size) for a, b in zip(starts, stops, strict=True)]
    stop_of = np.repeat(np.asarray(stops, np.int64), np.asarray([len(one) for one in begin], np.int64))
    first = np.concatenate([np.zeros(0, np.int64), *begin])
    return first, np.minimum(first + size, stop_of)


def grouped_by_length(ids: np.ndarray, lengths: np.ndarray, batch_size: int, batches: int, *key: int) -> np.ndarray:
    """Records of similar length brought together in batches.

    Windows of `batches` batches are sorted by length; then their batches are put in random order. The last batch of the
    epoch, which may be smaller, stays last.

    Args:
        ids: An order of records.
        lengths: Bytes of each.
        batch_size: Records of a batch.
        batches: Batches of a window.
        key: Seed, epoch.
    """
    window = np.arange(len(ids)) // (batch_size * batches)
    ids = ids[np.lexsort((lengths, window))]
    whole = len(ids) // batch_size
    random = random_keys(whole, BATCHES, *key)
    order = np.lexsort((random, np.arange(whole) // batches))
    return np.concatenate(
        [ids[: whole * batch_size].reshape(whole, batch_size)[order].reshape(-1), ids[whole * batch_size :]]
    )


def proportions(weights: Sequence[float], count: int) -> list[int]:
    """How many of `count` records come from each source: the largest remainders are rounded up."""
    exact = np.asarray(weights, float) / sum(weights) * count
    whole = np.floor(exact).astype(np.int64)
    for source in np.argsort(whole - exact, kind="stable")[: count - int(whole.sum())]:
        whole[source] += 1
    return [int(one) for one in whole]


def mixed_order(
    first_ids: Sequence[int], counts: Sequence[int], shares: Sequence[int], shuffle: bool, seed: int, epoch: int
) -> np.ndarray:
    """One epoch of several sources, evenly interleaved.

    Each source is an endless stream of permutations of its records, of which each epoch takes the next `share`. The
    k-th record of a source with s of n records comes at place (k + 1/2) n/s, so that every beginning of the epoch has
    the proportions to within a record.

    Args:
        first_ids: Number of each source's first record.
        counts: Records of each source.
        shares: Records that an epoch takes of each source.
        shuffle: Whether to permute the sources.
        seed, epoch: Of the permutations.
    """
    ids, places = [], []
    for source, (first, count, share) in enumerate(zip(first_ids, counts, shares, strict=True)):
        ids.append(first + _stream(count, epoch * share, (epoch + 1) * share, shuffle, seed, source))
        places.append((np.arange(share) + 0.5) / max(share, 1))
    return np.concatenate(ids)[np.argsort(np.concatenate(places), kind="stable")]


def _stream(count: int, begin: int, end: int, shuffle: bool, seed: int, source: int) -> np.ndarray:
    """Places begin to end of a source's endless stream."""
    parts = [np.zeros(0, np.int64)]
    for turn in range(begin // count, -(-end // count)):
        order = permutation(count, SOURCES, seed, source, turn) if shuffle else np.arange(count)
        parts.append(order[max(begin - turn * count, 0) : end - turn * count])
    return np.concatenate(parts)
