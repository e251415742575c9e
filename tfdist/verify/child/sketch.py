"""What is kept of a variable: all of it, or for a large one a count sketch, in which no difference gets lost.

A count sketch adds each element, with a random sign, to a random one of BUCKETS sums: s[h(i)] += sign(i) * w[i]. It is
linear, so the difference of two sketches is the sketch of the difference: an element that differs shows in its bucket
however large the variable is, where a sample of elements would miss it (one row of an embedding, say).

    Charikar, Chen, Farach-Colton, "Finding frequent items in data streams", 2002.
"""

from __future__ import annotations

import numpy as np

#: Variables with more elements are sketched: 20 steps of one this large are 40 MB in float64.
MOST_ELEMENTS = 1 << 18
BUCKETS = 1 << 16
_CHUNK = 1 << 22
# Odd constants of SplitMix64 (Steele, Lea, Flood 2014).
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def keep(value: np.ndarray) -> np.ndarray:
    """The variable's values, or its sketch, as a flat array; integers and booleans as float64."""
    flat = np.ravel(value)
    if flat.dtype.kind not in "fiub":  # bfloat16 and float8 are no kinds of NumPy's own
        flat = flat.astype(np.float32)
    if flat.size <= MOST_ELEMENTS:
        return flat if flat.dtype.kind == "f" else flat.astype(np.float64)
    sums = np.zeros(BUCKETS)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float64)
        mixed = _mixed(start, part.size)
        signs = 1.0 - 2.0 * (mixed >> np.uint64(63)).astype(np.float64)
        buckets = (mixed % np.uint64(BUCKETS)).astype(np.int64)
        sums += np.bincount(buckets, part * signs, BUCKETS)
    return sums


def _mixed(start: int, count: int) -> np.ndarray:
    """SplitMix64 of the element numbers."""
    with np.errstate(over="ignore"):
        x = (np.arange(start, start + count, dtype=np.uint64) + np.uint64(1)) * _MIX[0]
        x = (x ^ (x >> np.uint64(30))) * _MIX[1]
        x = (x ^ (x >> np.uint64(27))) * _MIX[2]
        return x ^ (x >> np.uint64(31))
