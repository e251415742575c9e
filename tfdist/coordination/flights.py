"""Executions in flight: handed to the coordinator, run on whichever worker is free, their results taken as they land.

A worker that dies loses nothing: TensorFlow's coordinator runs the function again elsewhere. Its effect on the
variables may then have happened twice, its result is taken once.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tfdist._compat import tensorflow_coordinator as compat
from tfdist._compat import tensorflow_remote_functions as remote_functions
from tfdist.cluster import Address, Cluster, Task
from tfdist.coordination.connections import limit_silence
from tfdist.coordination.faults import explained
from tfdist.coordination.serving import tell_to_begin_anew
from tfdist.log import logger

#: How often it's looked whether the job has failed while a result is waited for.
_LOOK_EVERY_SECONDS = 0.2
#: How often it's looked for new connections.
_LIMIT_EVERY_SECONDS = 1.0
#: How long a worker waits before it looks again for an execution of its own.
_DECLINED_SECONDS = 0.01


class Flight:
    """One execution.

    Args:
        function: Concrete function of the worker.
        arguments: Gives its arguments, from the index of the worker that runs it; None leaves it to another worker.
        on_result: Called with its result when that is taken.
        landed: Where to put it when it has a result.
        busy: The workers that are at an execution.
        again: Hands it to the coordinator for another worker.
    """

    def __init__(
        self,
        function: Any,
        arguments: Callable[[int], Any],
        on_result: Callable[[Any], object],
        landed: queue.SimpleQueue[Flight],
        busy: set[int],
        again: Callable[[Flight], None],
    ) -> None:
        self._function, self._landed, self._busy, self._again = function, landed, busy, again
        self._arguments: Callable[[int], Any] | None = arguments
        self.on_result = on_result
        #: Gives the result in this process, None while there is none.
        self.result: Callable[[], Any] | None = None
        #: How many it makes, and how many of those that began before it had landed then.
        self.pushes = self.pushes_landed_before = 0
        #: When it began last, and on which worker.
        self.begun_at: float | None = None
        self.worker: int | None = None

    def run(self) -> None:
        """Called in the coordinator's thread of a worker, on its device."""
        choose = self._arguments
        if choose is None:
            return  # another worker was quicker
        worker = compat.current_worker()
        arguments = choose(worker)
        if arguments is None:
            time.sleep(_DECLINED_SECONDS)  # the worker has nothing else to do
            self._again(self)
            return
        self.begun_at, self.worker = time.monotonic(), worker
        self._busy.add(worker)
        try:
            # Of its own: who lets go of a tensor that a worker has a copy of is made to wait for that worker.
            result = self._function(*tf.nest.map_structure(compat.another_handle, arguments, expand_composites=True))
            # Fetched here, not where it's wanted: if the worker dies meanwhile the coordinator runs it again.
            flat = [tensor.numpy() for tensor in tf.nest.flatten(result, expand_composites=True)]
        except tf.errors.OpError as error:
            if self.worker == worker:
                self.begun_at = None  # the coordinator gives it to another
            if compat.is_spoiled(error):
                tell_to_begin_anew(Task("worker", worker))
            raise
        finally:
            self._busy.discard(worker)
        structure = tf.nest.map_structure(tf.type_spec_from_value, result)
        self.result = lambda: tf.nest.pack_sequence_as(structure, [tf.constant(one) for one in flat], True)
        self._arguments = None
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
        self._coordinator, self.cluster, self.limit = coordinator, cluster, limit
        self._patience_seconds = patience_seconds
        self._landed: queue.SimpleQueue[Flight] = queue.SimpleQueue()
        #: In the order in which they began.
        self._under_way: list[Flight] = []
        self._looked_at = 0.0
        self._busy: set[int] = set()
        #: Since when no execution has landed because workers say that they don't reach a ps.
        self._ps_missed_since: float | None = None
        compat.doubt_ps_failures(coordinator, self._are_ps_there)
        self._limited_at = -_LIMIT_EVERY_SECONDS
        #: Of the policy, see `tfdist.updates.Policy`.
        self.waits_at: int | None = None
        self._pushes_begun = 0
        #: Says whether an execution that trains has to wait for others.
        self.rounds_gate: Callable[[], bool] | None = None
        #: Called when what has landed is to be forgotten, and when all have landed.
        self.on_forget: Callable[[], None] = lambda: None
        self.on_round_end: Callable[[], None] = lambda: None
        #: How many epochs have ended.
        self.rounds = 0

    def __len__(self) -> int:
        return len(self._under_way)

    def is_full(self, pushes: int = 0) -> bool:
        """Whether one has to land before the next, with so many pushes, may begin."""
        if pushes and self.rounds_gate is not None and self.rounds_gate():
            return True
        return len(self._under_way) >= self.limit or self._would_age(pushes)

    def _would_age(self, pushes: int) -> bool:
        """Whether with these the staleness of a push could exceed what the policy waits at.

        Between reading and applying of an execution's step come, at most, the pushes of executions that had not landed
        when it began, and of those that have begun since.
        """
        if self.waits_at is None or not self._under_way:
            return False
        flying = [one for one in self._under_way if one.result is None]
        landed = self._pushes_begun - sum(one.pushes for one in flying)
        others = [self._pushes_begun - one.pushes_landed_before - one.pushes for one in flying]
        return max([self._pushes_begun - landed, *(other + pushes for other in others)]) > self.waits_at

    def begin(
        self, function: Any, arguments: Callable[[int], Any], on_result: Callable[[Any], object], pushes: int = 0
    ) -> None:
        """Hand one to the coordinator, which makes at most so many pushes; see `Flight`."""
        function = compat.cancelable(self._coordinator, function)
        flight = Flight(function, arguments, on_result, self._landed, self._busy, self._schedule)
        flight.pushes = pushes
        flight.pushes_landed_before = self._pushes_begun - sum(one.pushes for one in self._under_way if not one.result)
        self._pushes_begun += pushes
        self._under_way.append(flight)
        with self._failing():
            self._schedule(flight)

    def _schedule(self, flight: Flight) -> None:
        compat.schedule(self._coordinator, flight.run)

    def take_one(self) -> None:
        """Wait until one lands, whichever it is, and hand its result on."""
        self._limit_silence()
        flight = self._next_landed()
        self._under_way.remove(flight)
        if flight.result is not None:
            flight.on_result(flight.result())

    def _are_ps_there(self) -> bool:
        """Asked when a worker did not reach one: whether that may be the worker's own trouble."""
        now = time.monotonic()
        self._ps_missed_since = self._ps_missed_since or now
        if now - self._ps_missed_since > self._patience_seconds:
            return False
        return self._listen("ps")

    def _listen(self, job: str) -> bool:
        """Whether all tasks of a job do."""
        return all(Address.parse(address).listens() for address in self.cluster.addresses(job))

    def _limit_silence(self) -> None:
        """Connections are made, and made anew, at any time."""
        now = time.monotonic()
        if now - self._limited_at > _LIMIT_EVERY_SECONDS:
            limit_silence(self.cluster.addresses("worker"), self._patience_seconds)
            self._limited_at = now

    def take_all(self) -> None:
        """Wait until none is in flight."""
        while self._under_way:
            self.take_one()

    def end_round(self) -> None:
        """Wait until none is in flight; what begins then is an epoch of its own."""
        self.take_all()
        self.on_round_end()
        self.rounds += 1
        # A worker that is still at an execution, which another made in its place, may not answer.
        if not self._busy and self._listen("worker"):
            remote_functions.remove_unused()

    def forget(self) -> None:
        """Wait until none is in flight, and drop the results; of a `fit` that was interrupted."""
        for flight in self._under_way:
            flight.on_result = lambda _: None
        self.take_all()
        self.on_forget()
        self.end_round()

    def _next_landed(self) -> Flight:
        """Waits for it; raises what the job has failed with."""
        while True:
            self._look()
            with contextlib.suppress(queue.Empty):
                flight = self._landed.get(timeout=_LOOK_EVERY_SECONDS)
                self._ps_missed_since = None
                # One that two workers made lands twice; one that was forgotten lands too.
                if flight in self._under_way:
                    return flight

    def _look(self) -> None:
        """Now and then, also while others land."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_SECONDS:
            return
        self._looked_at = now
        self._limit_silence()
        with self._failing():
            self._coordinator.done()
        for flight in self._under_way:
            if (
                flight.result is None
                and flight.begun_at is not None
                and now - flight.begun_at >= self._patience_seconds
            ):
                self._begin_again(flight, now - flight.begun_at)

    def _begin_again(self, flight: Flight, seconds: float) -> None:
        """Have another worker make an execution that takes too long: its worker is stopped, or out of reach."""
        logger.warning(
            "worker %d has been at an execution for %.0f s: another worker begins it too. If it only takes long, raise "
            "patience_seconds",
            flight.worker,
            seconds,
        )
        flight.begun_at = None
        self._schedule(flight)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """When the job has failed nothing is in flight any more."""
        try:
            with explained(self.cluster):
                yield
        except Exception:
            self._under_way.clear()
            raise
