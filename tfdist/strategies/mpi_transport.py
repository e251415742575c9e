"""Sums and gathers arrays of all workers by MPI.

Order of events in a call
    1. The worker arrives: one small all-reduce tells that all are here, and whether they are about to do the same.
       The wait for the slowest happens here, in naps, so that the core computes meanwhile.
    2. The arrays are added up or gathered, which takes only as long as it takes.

MPI's operations are begun without waiting for them and asked whether they are done, so that the loss of a worker ends a
wait. A buffer of an operation that never ended is kept, since MPI may still write to it.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfdist.cluster import mpi
from tfdist.errors import TaskLostError, WorkersDisagreeError

#: Asking again at once is twice as fast as naps for 4 MB, and 100 MB take naps as well.
_SPIN_SECONDS = 1e-3
#: TensorFlow takes an array as it is if it begins at a multiple of it.
_ALIGNMENT_BYTES = 64
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
        # MPI may allow one thread at a time only, and eager calls come from any.
        self._lock = threading.Lock()
        self._ranks, copied = world.Idup()
        self._wait(copied)
        mpi.unlink_shared_memory()

    def sum(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Each array's sum over all workers.

        Args:
            arrays: of one type, float32, float64, int32 or int64.

        Returns:
            Arrays that are parts of one buffer, nobody else's.

        Raises:
            WorkersDisagreeError: another worker is about to do something else.
            TaskLostError: a worker is gone.
        """
        totals, buffer = _parts_of_one_buffer(arrays)
        source: Any = self._mpi.IN_PLACE
        if len(arrays) == 1:
            source = np.ascontiguousarray(arrays[0]).reshape(-1)
        else:
            for total, array in zip(totals, arrays, strict=True):
                np.copyto(total, array)
        with self._lock:
            self._arrive("sum", arrays)
            self._wait(self._ranks.Iallreduce(source, buffer), source, buffer, spin_seconds=_SPIN_SECONDS)
        return totals

    def gather(self, array: np.ndarray) -> np.ndarray:
        """All workers' arrays, of equal shapes and any type, one after another by their first dimension.

        Raises:
            WorkersDisagreeError: another worker is about to do something else.
            TaskLostError: a worker is gone.
        """
        own = np.ascontiguousarray(array)
        gathered = _aligned(own.nbytes * self._ranks.Get_size())
        with self._lock:
            self._arrive("gather", [array])
            request = self._ranks.Iallgather(own.reshape(-1).view(np.uint8), gathered)
            self._wait(request, own, gathered, spin_seconds=_SPIN_SECONDS)
        return gathered.view(own.dtype).reshape(self._ranks.Get_size() * own.shape[0], *own.shape[1:])

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


def _parts_of_one_buffer(arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """An array of each one's shape, aligned, and the flat one that they are parts of."""
    dtype = arrays[0].dtype
    rounded = [-(-array.nbytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES for array in arrays]
    buffer = _aligned(sum(rounded))
    parts, begin = [], 0
    for array, size in zip(arrays, rounded, strict=True):
        parts.append(buffer[begin : begin + array.nbytes].view(dtype).reshape(array.shape))
        buffer[begin + array.nbytes : begin + size] = 0  # added up too, in vain
        begin += size
    used = begin if len(arrays) > 1 else arrays[0].nbytes
    return parts, buffer[:used].view(dtype)


def _aligned(size: int) -> np.ndarray:
    raw = np.empty(size + _ALIGNMENT_BYTES, np.uint8)
    begin = -raw.ctypes.data % _ALIGNMENT_BYTES
    return raw[begin : begin + size]
