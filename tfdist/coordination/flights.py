"""Executions in flight: handed to the coordinator, run on whichever worker is free, their results taken in turn.

A worker that dies loses nothing: TensorFlow's coordinator runs the function again elsewhere. Its effect on the
variables may then have happened twice, its result is taken once.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tfdist._compat import tensorflow_parameter_server as compat
from tfdist.cluster import Cluster
from tfdist.coordination.faults import explained
from tfdist.log import logger

#: How often it's looked whether the job has failed while a result is waited for.
_LOOK_EVERY_SECONDS = 0.2
#: How long a worker waits before it looks again for an execution of its own.
_DECLINED_SECONDS = 0.01


class Flight:
    """One execution.

    Args:
        function: Concrete function of the worker.
        arguments: Gives its arguments, from the index of the worker that runs it; None leaves it to another worker.
        on_result: Called with its result when that is taken.
        landed: Where to put it when it has a result.
        again: Hands it to the coordinator for another worker.
    """

    def __init__(
        self,
        function: Any,
        arguments: Callable[[int], Any],
        on_result: Callable[[Any], object],
        landed: queue.SimpleQueue[Flight],
        again: Callable[[Flight], None],
    ) -> None:
        self._function, self._arguments, self._landed, self._again = function, arguments, landed, again
        self.on_result = on_result
        #: Gives the result in this process, None while there is none.
        self.result: Callable[[], Any] | None = None
        #: When it began last, and on which worker.
        self.begun_at: float | None = None
        self.worker: int | None = None

    def run(self) -> None:
        """Called in the coordinator's thread of a worker, on its device."""
        if self.result is not None:
            return  # another worker was quicker
        arguments = self._arguments(compat.current_worker())
        if arguments is None:
            time.sleep(_DECLINED_SECONDS)  # the worker has nothing else to do
            self._again(self)
            return
        self.begun_at, self.worker = time.monotonic(), compat.current_worker()
        result = self._function(*arguments)
        # Fetched here, not where it's wanted: if the worker dies meanwhile the coordinator runs it again.
        flat = [tensor.numpy() for tensor in tf.nest.flatten(result, expand_composites=True)]
        self.result = lambda: tf.nest.pack_sequence_as(result, [tf.constant(one) for one in flat], True)
        self._landed.put(self)


class Flights:
    """All that are under way, of one strategy.

    Args:
        coordinator: TensorFlow's ClusterCoordinator.
        cluster: Of the job.
        limit: How many may be in flight.
        patience_seconds: How long one may take before another worker begins it too.
    """

    def __init__(self, coordinator: Any, cluster: Cluster, limit: int, patience_seconds: float) -> None:
        self._coordinator, self._cluster, self.limit = coordinator, cluster, limit
        self._patience_seconds = patience_seconds
        self._landed: queue.SimpleQueue[Flight] = queue.SimpleQueue()
        self._in_order: collections.deque[Flight] = collections.deque()
        #: How many epochs have ended.
        self.rounds = 0

    def __len__(self) -> int:
        return len(self._in_order)

    @property
    def is_full(self) -> bool:
        """Whether one has to land before the next may begin."""
        return len(self._in_order) >= self.limit

    def begin(self, function: Any, arguments: Callable[[int], Any], on_result: Callable[[Any], object]) -> None:
        """Hand one to the coordinator; see `Flight`."""
        function = compat.cancelable(self._coordinator, function)
        flight = Flight(function, arguments, on_result, self._landed, self._schedule)
        self._in_order.append(flight)
        with self._failing():
            self._schedule(flight)

    def _schedule(self, flight: Flight) -> None:
        compat.schedule(self._coordinator, flight.run)

    def take_first(self) -> None:
        """Wait for the one that began first, and hand its result on."""
        first = self._in_order[0]
        while first.result is None:
            self._wait()
        self._in_order.popleft()
        first.on_result(first.result())

    def take_all(self) -> None:
        """Wait until none is in flight."""
        while self._in_order:
            self.take_first()

    def end_round(self) -> None:
        """Wait until none is in flight; what begins then is an epoch of its own."""
        self.take_all()
        self.rounds += 1

    def forget(self) -> None:
        """Wait until none is in flight, and drop the results; of a `fit` that was interrupted."""
        for flight in self._in_order:
            flight.on_result = lambda _: None
        self.end_round()

    def _wait(self) -> None:
        """Until one lands; raises what the job has failed with."""
        while True:
            try:
                self._landed.get(timeout=_LOOK_EVERY_SECONDS)
                return
            except queue.Empty:
                with self._failing():
                    self._coordinator.done()
                self._begin_again(self._in_order[0])

    def _begin_again(self, flight: Flight) -> None:
        """Have another worker make an execution that takes too long: its worker is stopped, or out of reach."""
        if flight.begun_at is None or time.monotonic() - flight.begun_at < self._patience_seconds:
            return
        logger.warning(
            "worker %d has been at an execution for %.0f s: another worker begins it too. If it only takes long, raise "
            "patience_seconds",
            flight.worker,
            time.monotonic() - flight.begun_at,
        )
        flight.begun_at = None
        self._schedule(flight)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """When the job has failed nothing is in flight any more."""
        try:
            with explained(self._cluster):
                yield
        except Exception:
            self._in_order.clear()
            raise
