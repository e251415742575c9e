"""Cores and memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

from tfdist.cluster.checks.finding import Finding

# One TensorFlow process with a small model takes 0.5 GB.
_LEAST_MEMORY_BYTES = 2**30


def check_machine() -> Iterator[Finding]:
    """Gives the system, the cores that this process may use, and the memory."""
    yield Finding("system", f"{platform.system()} {platform.machine()}, {platform.node()}")
    yield Finding("cores", str(_usable_cores()))
    yield _memory()


def _usable_cores() -> int:
    # Containers and `taskset` allow fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> Finding:
    try:
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        total = os.sysconf("SC_PHYS_PAGES") * page_bytes
        free = os.sysconf("SC_AVPHYS_PAGES") * page_bytes
    except (ValueError, OSError):  # macOS doesn't say how much is free
        return Finding("memory", "unknown")
    said = f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB unused"
    if total < _LEAST_MEMORY_BYTES:
        return Finding("memory", said, "Use a machine with 2 GiB or more.")
    return Finding("memory", said)
