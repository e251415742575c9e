"""Sums and gathers arrays of all workers by MPI.

Order of events in a call
    1. The worker arrives: one small all-reduce tells that all are here, and whether they are about to do the same.
       The wait for the slowest happens here, in naps, so that the core computes meanwhile.
    2. The arrays are added up or gathered, which takes only as long as it takes.

MPI's operations are begun without waiting for them and asked whether they are done, so that the loss of a worker ends a
wait. A buffer of an operation that never ended is kept, since MPI may still write to it.
"""

from __future__ import annotations

import functools
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfdist.cluster import mpi
from tfdist.errors import TaskLostError, WorkersDisagreeError
from tfdist.strategies.mpi_buffers import ALIGNMENT_BYTES, Buffers
from tfdist.strategies.mpi_shared import LEAST_BYTES, SharedSums

#: Asking again at once is twice as fast as naps for 4 MB, and 100 MB take naps as well.
_SPIN_SECONDS = 1e-3
_DESCRIBED_BYTES = 200


class MPITransport:
    """What workers send arrays through; every worker makes the same calls in the same order.

    Args:
        world: the communicator of all workers, an mpi4py.MPI.Intracomm. It's copied, at the same time on all of them.
        check: raises TaskLostError if there's nobody left to wait for.
    """

    def __init__(self, world: Any, check: Callable[[], None]) -> None:
        from mpi4py import MPI

        self._mpi, self._check = MPI, check
        self._pending: list[Any] = []
        self._buffers = Buffers()
        # MPI may allow one thread at a time only, and eager calls come from any.
        self._lock = threading.Lock()
        self._ranks, copied = world.Idup()
        self._wait(copied)
        self._shared = SharedSums(self._ranks, functools.partial(self._wait, spin_seconds=_SPIN_SECONDS))
        self._wait(self._ranks.Ibarrier())  # all have opened what they share
        mpi.unlink_shared_memory()

    def sum(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Each array's sum over all workers.

        Args:
            arrays: of one type, float32, float64, int32 or int64.

        Returns:
            Arrays that are parts of one buffer, which is used again when nobody has them any more.

        Raises:
            WorkersDisagreeError: another worker is about to do something else.
            TaskLostError: a worker is gone.
        """
        with self._lock:
            totals, flat = parts_of(self._buffers.take(size_of(arrays)), arrays)
            self._arrive("sum", arrays)
            if self._shared.is_possible and flat.nbytes >= LEAST_BYTES:
                self._shared.add_up(flat)
            else:
                self._wait(self._ranks.Iallreduce(self._mpi.IN_PLACE, flat), flat, spin_seconds=_SPIN_SECONDS)
        return totals

    def gather(self, array: np.ndarray) -> np.ndarray:
        """All workers' arrays, of equal shapes and any type, one after another by their first dimension.

        Raises:
            WorkersDisagreeError: another worker is about to do something else.
            TaskLostError: a worker is gone.
        """
        size, rank = self._ranks.Get_size(), self._ranks.Get_rank()
        with self._lock:
            buffer = self._buffers.take(size * array.nbytes)
            gathered = buffer.view(array.dtype).reshape(size, *array.shape)
            gathered[rank] = array
            self._arrive("gather", [array])
            request = self._ranks.Iallgather(self._mpi.IN_PLACE, buffer)
            self._wait(request, buffer, spin_seconds=_SPIN_SECONDS)
        return gathered.reshape(size * array.shape[0], *array.shape[1:])

    def _arrive(self, what: str, arrays: Sequence[np.ndarray]) -> None:
        described = f"{what} of {arrays[0].dtype} {[array.shape for array in arrays]}".encode()
        told = zlib.crc32(described)
        # The largest and, negated, the smallest of what all tell.
        extremes = np.array([told, -told])
        self._wait(self._ranks.Iallreduce(self._mpi.IN_PLACE, extremes, self._mpi.MAX), extremes)
        if extremes[0] != -extremes[1]:
            raise self._disagreement(described)

    def _disagreement(self, described: bytes) -> WorkersDisagreeError:
        own = described[:_DESCRIBED_BYTES].ljust(_DESCRIBED_BYTES)
        all_described = bytearray(len(own) * self._ranks.Get_size())
        self._wait(self._ranks.Iallgather(own, all_described), own, all_described)
        parts = [all_described[start : start + len(own)] for start in range(0, len(all_described), len(own))]
        said = "; ".join(f"worker {index}: {bytes(part).decode().strip()}" for index, part in enumerate(parts))
        return WorkersDisagreeError(
            f"Expected: the same collective operation on all workers. Received: {said}. All must run the same "
            "script on the same model."
        )

    def _wait(self, request: Any, *buffers: Any, spin_seconds: float = 0.0) -> None:
        try:
            mpi.wait(request, spin_seconds=spin_seconds, check=self._check)
        except TaskLostError as error:
            mpi.give_up(str(error))
            self._pending.append((request, buffers))
            raise


def parts_of(buffer: np.ndarray, arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Copies of arrays of one type, each aligned, and the flat array that they are parts of.

    Args:
        buffer: bytes, aligned, `size_of(arrays)` of them.
        arrays: what is copied.
    """
    parts, begin = [], 0
    for array in arrays:
        end = begin + array.nbytes
        parts.append(buffer[begin:end].view(array.dtype).reshape(array.shape))
        np.copyto(parts[-1], array)
        begin = _rounded(end)
        buffer[end:begin] = 0  # added up too, in vain
    return parts, buffer.view(arrays[0].dtype)


def size_of(arrays: Sequence[np.ndarray]) -> int:
    """Bytes that arrays take if each is aligned."""
    return sum(_rounded(array.nbytes) for array in arrays)


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
