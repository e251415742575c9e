"""Sums of arrays of ranks that share memory, as those of one host do; MPI gives the memory (MPI-4.0, section 12.2.3).

A sum goes through windows of two slots, which each rank has and all of its host can read, a slot's worth at a time:

    1. A rank copies its numbers into its slot.                                       barrier
    2. It adds up its slice of all slots: rank 1 of 3 the second third of each.
    3. With several hosts, ranks of the same place on each add up their slices by MPI.    barrier
    4. It copies all slices from those who added them up.

So each number is added up by one rank of a host, and all have the same bits. The slots take turns: a rank that fills
one has passed a barrier behind which nobody reads what was in there.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

#: Containers often have no more than 64 MB for all, and this fits a core's cache.
_SLOT_BYTES = 1 << 20
#: Below, MPI's own sum is faster than two barriers.
LEAST_BYTES = 64 << 10


class SharedSums:
    """Made by all ranks at the same time.

    Args:
        ranks: an mpi4py.MPI.Intracomm.
        wait: for a request, which uses these buffers; expected to be done soon.
    """

    def __init__(self, ranks: Any, wait: Callable[..., None]) -> None:
        from mpi4py import MPI

        self._mpi, self._wait = MPI, wait
        self._host = ranks.Split_type(MPI.COMM_TYPE_SHARED)
        self._place, self._count = self._host.Get_rank(), self._host.Get_size()
        self._across = ranks.Split(self._place)
        sharing = self._count if has_core_each(self._host) else 1
        #: Whether there is something to gain; the same on all ranks.
        self.is_possible = _is_same(sharing, ranks, MPI) and sharing > 1
        if self.is_possible:
            self._window = MPI.Win.Allocate_shared(2 * _SLOT_BYTES, comm=self._host)
            self._window.Lock_all()
            windows: list[Any] = [self._window.Shared_query(rank)[0] for rank in range(self._count)]
            self._slots = [np.frombuffer(window, np.uint8).reshape(2, -1) for window in windows]
            self._next_slot = 0

    def add_up(self, flat: np.ndarray) -> None:
        """Every element becomes its sum over all ranks.

        Args:
            flat: [n], of a type whose size divides that of a slot; of the same length and type on all ranks.
        """
        step = _SLOT_BYTES // flat.itemsize
        for begin in range(0, flat.size, step):
            self._add_up_slot(flat[begin : begin + step])

    def _add_up_slot(self, part: np.ndarray) -> None:
        slots = [slots[self._next_slot].view(part.dtype)[: part.size] for slots in self._slots]
        self._next_slot = 1 - self._next_slot
        bounds = [part.size * rank // self._count for rank in range(self._count + 1)]
        slices = [slice(begin, end) for begin, end in itertools.pairwise(bounds)]
        np.copyto(slots[self._place], part)
        self._meet()
        own, mine = slots[self._place], slices[self._place]
        total = own[mine]
        for slot in slots:
            if slot is not own:
                np.add(total, slot[mine], out=total)
        if self._across.Get_size() > 1:
            self._wait(self._across.Iallreduce(self._mpi.IN_PLACE, total), total)
        self._meet()
        for slot, one in zip(slots, slices, strict=True):
            np.copyto(part[one], slot[one])

    def _meet(self) -> None:
        self._window.Sync()
        self._wait(self._host.Ibarrier())
        self._window.Sync()


def has_core_each(host: Any) -> bool:
    """Whether the ranks of a host have as many cores; at barriers those that share one wait for the scheduler.

    Args:
        host: an mpi4py.MPI.Intracomm of ranks, all of which ask.
    """
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len(set().union(*host.allgather(list(cores)))) >= host.Get_size()


def _is_same(number: int, ranks: Any, mpi: Any) -> bool:
    extremes = np.array([number, -number])
    ranks.Allreduce(mpi.IN_PLACE, extremes, mpi.MAX)
    return bool(extremes[0] == -extremes[1])
