"""SIGTERM to one worker: all of them save at the same boundary, and exit with PREEMPTED.

Glossary:
    boundary: as in a checkpoint; they are passed in the same order by all workers.
    notice: a key of the cluster's key-value store, which a worker that has got SIGTERM publishes.
    watcher: a thread of each worker that waits for the notice, so that nobody asks for it in a step.

Order of events in a job of several workers

    SIGTERM                 sets a flag, nothing else
    the next boundary       the worker that got it publishes the notice, and waits
    each watcher            says which boundary its worker has passed last; from now on its worker waits at the next one
    all have said so        target: the first boundary behind all those that any worker has passed
    each worker             goes on to the target, and saves there with the others, or at the next boundary where
                            saving is allowed
    the checkpoint is whole the chief says so; all exit, the chief last, since it holds the key-value store

    A worker waits for watchers alone, and watchers wait for watchers, so nobody waits for a worker that waits for him.

    SIGTERM behind the last boundary of `fit`  workers tell each other when it ends, and exit, or go on, together
    a worker doesn't answer                    WorkersDisagreeError after AGREE_SECONDS; its exit code isn't PREEMPTED
    `fit` ends by an exception                 what was there for SIGTERM is put back
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any, NoReturn

import tensorflow as tf

from tfdist._compat.tensorflow import look_up, publish, publish_first
from tfdist.checkpoint.sigterm import SigtermFlag
from tfdist.cluster.exit_codes import PREEMPTED
from tfdist.errors import WorkersDisagreeError
from tfdist.log import logger

#: Epoch in which training goes on, and steps in all: one is larger than another if it comes later.
Boundary = tuple[int, int]

#: How long a worker that is to save waits for the others' watchers, which have nothing else to do.
AGREE_SECONDS = 60.0
#: How long the chief stays for the others to have heard that all is saved.
LEAVE_SECONDS = 10.0
#: How long the end of a fit waits for the chief to hear of it, who may be stopped or cut off.
_OVER_SECONDS = 2.0
#: TensorFlow keeps what was asked for until it is there, also when nobody waits any more: so it is asked for rarely.
_SLICE_SECONDS = 3600.0
#: What is published in place of a notice, so that watchers end.
_OVER = ""


class Preemption:
    """What a `fit` in one process does about SIGTERM."""

    def __init__(self) -> None:
        self._flag = SigtermFlag()
        self._is_announced = False

    def begin(self) -> None:
        """Catch SIGTERM."""
        if not self._flag.install():
            logger.info("SIGTERM won't save training: fit isn't called by the main thread, or SIGTERM is ignored")

    def is_due(self, boundary: Boundary) -> bool:
        """Whether to save at this boundary and exit, the same on all workers; asked at every boundary."""
        if self._flag.is_set:
            self._announce("SIGTERM came to this process")
        return self._flag.is_set

    def is_due_at_end(self) -> bool:
        """Whether to exit behind the last boundary; SIGTERM isn't caught any more from here."""
        self._flag.put_back()
        return self._flag.is_set

    def _announce(self, what: str) -> None:
        if not self._is_announced:
            self._is_announced = True
            logger.warning("%s: training is saved behind the next step, or its epoch, and ends", what)

    def leave(self, where: str) -> NoReturn:
        """All is saved.

        Args:
            where: the checkpoint's path.

        Raises:
            SystemExit: with PREEMPTED.
        """
        logger.warning("exit code %d: training is saved in %s, and the same command goes on there", PREEMPTED, where)
        self._flag.ignore()
        raise SystemExit(PREEMPTED)

    def end(self) -> None:
        """The `fit` is over, however it ended."""
        self._flag.put_back()


class NoPreemption(Preemption):
    """SIGTERM does what it did."""

    def begin(self) -> None:
        """Nothing is caught."""


class SharedPreemption(Preemption):
    """What a `fit` of several workers does about SIGTERM to any of them.

    Args:
        key: prefix of keys, the same on every worker and new for each `fit`.
        worker: this worker's index; 0 is the chief.
        workers: how many there are.
        peer_timeout_seconds: how long a worker may end its `fit` later than another.
    """

    def __init__(self, key: str, *, worker: int, workers: int, peer_timeout_seconds: float) -> None:
        super().__init__()
        self._key, self._worker, self._peer_timeout_seconds = key, worker, peer_timeout_seconds
        self._others = [one for one in range(workers) if one != worker]
        #: Guards what follows; notified when workers have agreed, or can't.
        self._changed = threading.Condition()
        self._passed: Boundary = (-1, -1)
        self._is_noticed = False
        self._behind: Boundary | None = None
        self._got_by = ""
        self._error: Exception | None = None
        self._watcher = threading.Thread(target=self._watch, name="tfdist-preemption", daemon=True)

    def begin(self) -> None:
        """Catch SIGTERM, and wait for a notice of another worker."""
        super().begin()
        self._watcher.start()

    def is_due(self, boundary: Boundary) -> bool:
        """Waits for the others if any worker got SIGTERM."""
        if self._flag.is_set and not self._is_noticed:
            publish_first(f"{self._key}/notice", str(self._worker))
            self._notice()
        with self._changed:
            if not self._is_noticed:
                self._passed = boundary
                return False
            behind = self._agreed()
        self._announce(f"SIGTERM came to worker {self._got_by}")
        return boundary > behind

    def _notice(self) -> Boundary:
        with self._changed:
            self._is_noticed = True
            return self._passed

    def _agreed(self) -> Boundary:
        self._changed.wait_for(lambda: self._behind or self._error, AGREE_SECONDS)
        if self._behind is None:
            raise WorkersDisagreeError(
                "Expected: all workers to agree where to save, since one of them got SIGTERM. "
                f"Received: {self._error or f'nothing in {AGREE_SECONDS:.0f} s'}. Start the job again: it goes on from "
                "its last checkpoint."
            ) from self._error
        return self._behind

    # In the watcher's thread.

    def _watch(self) -> None:
        try:
            got_by = None
            while got_by is None:
                got_by = look_up(f"{self._key}/notice", _SLICE_SECONDS)
            if got_by == _OVER:
                raise WorkersDisagreeError("the fit of another worker has ended")
            behind = self._exchange()
        except Exception as error:  # the job's end, most often
            with self._changed:
                self._error = error
                self._changed.notify_all()
            return
        with self._changed:
            self._behind, self._got_by = behind, got_by
            self._changed.notify_all()

    def _exchange(self) -> Boundary:
        """The last boundary that any worker has passed."""
        mine = self._notice()
        publish(f"{self._key}/passed/{self._worker}", json.dumps(mine))
        said = [self._said("passed", other, AGREE_SECONDS) for other in self._others]
        return max(mine, *((epoch, steps) for epoch, steps in map(json.loads, said)))

    def _said(self, what: str, other: int | str, seconds: float) -> str:
        value = look_up(f"{self._key}/{what}/{other}", seconds)
        if value is None:
            raise WorkersDisagreeError(
                f"Expected: worker {other} to end its fit, or save, as this worker does. Received: nothing in "
                f"{seconds:.0f} s. Look at that worker's log."
            )
        return value

    # The end.

    def is_due_at_end(self) -> bool:
        """The chief asks all and tells all, so that nobody goes on alone."""
        got = super().is_due_at_end() or self._is_noticed
        if self._worker:
            publish(f"{self._key}/end/{self._worker}", str(int(got)))
            is_due = self._said("end", "all", self._peer_timeout_seconds) == "1"
        else:
            said = [self._said("end", other, self._peer_timeout_seconds) for other in self._others]
            is_due = got or "1" in said
            publish(f"{self._key}/end/all", str(int(is_due)))
        if not is_due:
            self._part()
        return is_due

    def leave(self, where: str) -> NoReturn:
        """The chief goes last."""
        self._part()
        super().leave(where)

    def _part(self) -> None:
        """Nothing is asked of the chief any more; the chief waits until that is so for all."""
        self._stop_watching()
        with contextlib.suppress(tf.errors.OpError):
            if self._worker:
                publish(f"{self._key}/left/{self._worker}", "")
                return
            deadline = time.monotonic() + LEAVE_SECONDS
            for other in self._others:
                look_up(f"{self._key}/left/{other}", max(0.001, deadline - time.monotonic()))

    def end(self) -> None:
        """The watcher ends too."""
        super().end()
        self._stop_watching()

    def _stop_watching(self) -> None:
        if not self._watcher.is_alive():
            return
        try:
            publish_first(f"{self._key}/notice", _OVER, _OVER_SECONDS)
        except tf.errors.DeadlineExceededError:
            return  # the chief can't be reached; the watcher waits for it too, and holds up nobody
        except tf.errors.OpError:
            pass
        self._watcher.join(LEAVE_SECONDS)


def make_preemption(workers: Any, *, is_wanted: bool) -> Preemption:
    """For one `fit`, at whose beginning all workers have just met.

    Args:
        workers: the strategy, or `OneProcess()`.
        is_wanted: whether SIGTERM is to save.
    """
    if not is_wanted:
        return NoPreemption()
    if workers.num_workers == 1:
        return Preemption()
    return SharedPreemption(
        workers.shared_key("preemption"),
        worker=workers.worker_index,
        workers=workers.num_workers,
        peer_timeout_seconds=workers.peer_timeout_seconds,
    )
