"""How the workers of a job exchange gradients: the settings of TensorFlow's collectives over gRPC.

What each of them gains is in docs/communication.md.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import sys

from tfdist._compat.tensorflow_receive_chunks import receive_in_chunks

#: Of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_NEVER = 2**31 - 1
_TOP_PAD_BYTES = 64 << 20
#: Above, memory that is copied and added up costs more than a message.
_MOST_GATHERED_BYTES = 64 << 10
#: With any of these the user has decided about malloc.
_MALLOC_VARIABLES = (
    "GLIBC_TUNABLES",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_MMAP_THRESHOLD_",
    "LD_PRELOAD",
)


@dataclasses.dataclass(frozen=True)
class CollectiveSettings:
    """What a job of several workers on CPUs sets.

    Args:
        bucket_bytes: gradients are sent in buckets of at most this; 0 for all at once.
        receive_chunk_bytes: pieces in which a worker receives; 0 for TensorFlow's own.
        keeps_keys: whether what is sent in buckets has the same keys in every step; only where steps follow each other.
        gathered_bytes: buckets of at most this are gathered by many workers, who add them up for themselves; few
            gather more, see `gathered_bytes_among`. 0 for none.
        keeps_memory: whether memory that is freed stays with the process.
    """

    bucket_bytes: int = 4 << 20
    receive_chunk_bytes: int = 64 << 10
    keeps_keys: bool = True
    gathered_bytes: int = 4 << 10
    keeps_memory: bool = True

    def gathered_bytes_among(self, replicas: int) -> int:
        """What is gathered at most.

        n workers send S bytes n - 1 times, one after another, and a ring that adds up 2 (n - 1) times S / n bytes: half
        the latency for S (1 - 2 / n) more bytes each time, which is nothing for two.
        """
        if not self.gathered_bytes:
            return 0
        more = _MOST_GATHERED_BYTES if replicas == 2 else self.gathered_bytes * replicas // (replicas - 2)
        return min(_MOST_GATHERED_BYTES, more)

    def apply_to_process(self) -> None:
        """Before TensorFlow starts."""
        if self.receive_chunk_bytes:
            receive_in_chunks(self.receive_chunk_bytes)
        if self.keeps_memory:
            keep_freed_memory()


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed; whether it does.

    By default glibc gives buffers of megabytes back to the kernel, which hands them out again page by page, zeroed.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _MALLOC_VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not glibc
        return False
    settings = ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)
