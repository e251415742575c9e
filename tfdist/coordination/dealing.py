"""Who makes which steps of a pass over data that workers read themselves.

A lease is asked for when a worker is about to begin an execution, and stays with that execution if the worker fails, so
every step of a pass is leased once.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple, Protocol

from tfdist.coordination.part_sizes import PartSizes

# Executions. Beginning elsewhere costs about as much as a few of them.
_WORTH_TAKING = 8


class Lease(NamedTuple):
    """Steps `first` to `first + steps - 1` of a pass, or of one of its streams."""

    first: int
    steps: int
    stream: int = 0


class Dealer(Protocol):
    """Deals out a pass's steps."""

    def deal(self, worker: int, count: int) -> Lease | None:
        """Up to `count` steps for a worker's next execution, or None if another worker had better make it.

        It gives as many leases as there are executions.
        """

    def end(self, lease: Lease) -> bool:
        """Note that there were fewer steps than leased; whether the pass has ended, which is so if it has one part."""
        return True

    @property
    def has_dealt_all(self) -> bool:
        """Whether it knows that no step is left."""
        return False


class InOrder(Dealer):
    """For data that is read from front to back: the next steps, whoever asks.

    Each worker skips what the others were given, so it never goes back.

    Args:
        num_steps: Of the pass; None if nobody knows.
    """

    def __init__(self, num_steps: int | None) -> None:
        self._num_steps = num_steps
        self._next = 0
        self._lock = threading.Lock()

    def deal(self, worker: int, count: int) -> Lease:
        """See `Dealer`."""
        with self._lock:
            first = self._next
            self._next += count
        if self._num_steps is None:
            return Lease(first, count)
        first = min(first, self._num_steps)  # there is nothing behind the end that a worker could look for
        return Lease(first, min(count, self._num_steps - first))


class Paced(InOrder):
    """As `InOrder`, with leases as long as the worker is fast.

    Args:
        num_steps: Of the pass.
        steps: Of a lease, on average.
        sizes: Of the workers.
    """

    def __init__(self, num_steps: int, steps: int, sizes: PartSizes) -> None:
        super().__init__(num_steps)
        self._steps, self._sizes = steps, sizes

    def deal(self, worker: int, count: int) -> Lease:
        """See `Dealer`."""
        return super().deal(worker, self._sizes.steps(worker, self._steps, count))

    @property
    def has_dealt_all(self) -> bool:
        """See `Dealer`."""
        return self._num_steps is not None and self._next >= self._num_steps


class Streams(Dealer):
    """For data that has a stream for each worker: the next steps of its own, or, after its end, of one that goes on.

    Args:
        count: Streams, one a worker.
    """

    def __init__(self, count: int) -> None:
        self._next = [0] * count
        self._goes_on = [True] * count
        self._lock = threading.Lock()

    def deal(self, worker: int, count: int) -> Lease:
        """See `Dealer`."""
        with self._lock:
            left = [stream for stream, goes_on in enumerate(self._goes_on) if goes_on]
            if not left:
                return Lease(0, 0, worker)
            # The one that is least far has most left, if they are alike.
            stream = worker if worker in left else min(left, key=self._next.__getitem__)
            first = self._next[stream]
            self._next[stream] += count
        return Lease(first, count, stream)

    def end(self, lease: Lease) -> bool:
        """See `Dealer`."""
        with self._lock:
            self._goes_on[lease.stream] = False
            return not any(self._goes_on)


class Ranges(Dealer):
    """For data that can be read from anywhere: each worker has a range of its own, read from front to back.

    A worker at the end of its range takes the second half of the longest one that is left. To begin there takes it some
    time, so it leaves a short rest to its owner, unless that one has not come for more in a while.

    Args:
        num_steps: Of the pass.
        count: Steps of every execution but the last.
        workers: How many there are.
        patience_seconds: How long an owner may be away.
    """

    def __init__(self, num_steps: int, count: int, workers: int, patience_seconds: float = 1.0) -> None:
        self._num_steps, self._count, self._patience_seconds = num_steps, count, patience_seconds
        executions = -(-num_steps // count)
        bounds = [executions * worker // workers for worker in range(workers + 1)]
        self._ranges = [[bounds[worker], bounds[worker + 1]] for worker in range(workers)]
        self._came = [time.monotonic()] * workers
        self._lock = threading.Lock()

    def deal(self, worker: int, count: int) -> Lease | None:
        """See `Dealer`."""
        with self._lock:
            self._came[worker] = time.monotonic()
            own = self._ranges[worker]
            if own[0] == own[1] and not self._take_over(own):
                return None
            first = own[0] * self._count
            own[0] += 1
        return Lease(first, max(0, min(self._count, self._num_steps - first)))

    def _take_over(self, own: list[int]) -> bool:
        sizes = [end - begin for begin, end in self._ranges]
        owner = sizes.index(max(sizes))
        away_seconds = time.monotonic() - self._came[owner]
        if sizes[owner] < _WORTH_TAKING and away_seconds < self._patience_seconds:
            return False
        begin, end = self._ranges[owner]
        middle = (begin + end) // 2
        self._ranges[owner][1] = middle
        own[:] = [middle, end]
        return True
