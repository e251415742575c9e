"""What a strategy of several workers knows of the others while they train.

A worker that is gone ends the step that waits for it, with an error that names it; a worker that is late is named in
the log, with what it does. See `tfdist/cluster/peers` for how that is known.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
from collections.abc import Iterator, Mapping
from types import TracebackType

import tensorflow as tf

from tfdist._compat.tensorflow_coordination import abort_collectives
from tfdist.cluster.peers import Loss, PeerMesh, StepClock
from tfdist.errors import TaskLostError
from tfdist.log import logger
from tfdist.strategies.stall_watch import StallWatch

#: What TensorFlow raises for a peer that is gone, whatever the operation.
_PEER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
#: An operation may fail a moment before it is known why.
_VERDICT_SECONDS = 3.0
_MOST_CHARACTERS = 2000
#: Nobody who is well is silent for so long; see BEAT_SECONDS.
_SILENT_SECONDS = 4.0


class NobodyElse:
    """Stands where a watch is, in a job of one worker."""

    def check(self) -> None:
        """There is nobody to lose."""

    check_waiting = check

    @contextlib.contextmanager
    def execution(self) -> Iterator[None]:
        """Around an execution."""
        yield

    explained = execution

    def note_own_loop(self) -> None:
        """The user has steps of his own."""
        return  # AutoGraph warns of a method without a statement

    def end_round(self) -> None:
        """An epoch, an evaluation or a prediction has no more steps."""


class PeerWatch:
    """Watches the other workers of a job.

    Args:
        index: this worker's.
        num_workers: how many there are.
        host: of this task's address.
        stall_seconds: how long a step takes at least before the log says who is waited for.
        silent_seconds: who says nothing for longer is taken for stopped, where TensorFlow doesn't decide it.
    """

    def __init__(self, index: int, num_workers: int, host: str, *, stall_seconds: float, silent_seconds: float) -> None:
        self._silent_seconds = max(silent_seconds, _SILENT_SECONDS)
        self._index, self._num_workers = index, num_workers
        self._clock = StepClock()
        self._mesh = PeerMesh(index, host, self._clock)
        self._stalls = StallWatch(index, self._mesh, self._clock, least_seconds=stall_seconds)
        self._waiting, self._has_own_loop = 0, False
        self._left: Loss | None = None
        self._aborted_by: Loss | None = None

    @property
    def address(self) -> str:
        """Where the others call."""
        return self._mesh.address

    def connect(self, addresses: Mapping[int, str], token: str) -> None:
        """Connect to the others.

        Args:
            addresses: of all, by their index.
            token: the job's.
        """
        unreachable = self._mesh.connect(addresses, token, on_loss=self._on_loss, each_beat=self._look)
        for index in unreachable:
            logger.warning(
                "worker %d at %s can't be reached beside TensorFlow's port, so its end is noticed by missing "
                "heartbeats only. Open the ports between the workers",
                index,
                addresses[index],
            )
        atexit.register(self._mesh.close)
        self._say_what_fails()

    def check(self) -> None:
        """Raise an error if a worker is gone.

        Raises:
            TaskLostError: names it.
        """
        loss = self._mesh.loss()
        if loss is not None:
            raise self._error(loss)

    def check_waiting(self) -> None:
        """Raise an error if somebody for whom this worker waits outside of TensorFlow's collectives won't come.

        Raises:
            TaskLostError: names it.
        """
        loss = self._aborted_by or self._silent(self._silent_seconds)
        if loss is not None:
            raise self._error(loss)

    @contextlib.contextmanager
    def execution(self) -> Iterator[None]:
        """Around an execution, which needs all workers.

        Raises:
            TaskLostError: in place of TensorFlow's error, if a worker is gone.
        """
        self.check()
        try:
            with self.explained(), self._clock.execution():
                yield
        except tf.errors.OutOfRangeError:
            self.end_round()  # known by the data's end only
            raise

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """In place of TensorFlow's error for a worker that is gone, one that names it.

        Raises:
            TaskLostError: a worker is gone.
        """
        self._waiting += 1
        try:
            yield
        except (*_PEER_ERRORS, tf.errors.UnknownError) as error:
            loss = self._mesh.loss() or self._silent()
            # What Python raises in an operation is unknown to TensorFlow, and `check_waiting` raises what is known.
            if loss is None and isinstance(error, _PEER_ERRORS):
                loss = self._mesh.loss(_VERDICT_SECONDS)
            if loss is None:
                raise
            raise self._error(loss) from error
        finally:
            self._waiting -= 1

    def note_own_loop(self) -> None:
        """The user has steps of his own, so any moment may be one in which the others are needed."""
        self._has_own_loop = True

    def end_round(self) -> None:
        """An epoch, an evaluation or a prediction has no more steps: so it must be on all workers."""
        self._clock.end_round()

    def _silent(self, least_seconds: float = _SILENT_SECONDS) -> Loss | None:
        silent = {one: seconds for one, seconds in self._mesh.silent_seconds().items() if seconds > least_seconds}
        if not silent:
            return None
        longest = max(silent, key=lambda one: silent[one])
        return Loss(
            longest, f"has said nothing for {silent[longest]:.0f} s: it is stopped, or the network to it is cut"
        )

    def _error(self, loss: Loss) -> TaskLostError:
        return TaskLostError(
            f"Expected: all {self._num_workers} workers until training ends. Received: {loss}. Look at its log, and "
            "start the job again: with tfdist.callbacks.Checkpoint it goes on where it was, and "
            "`tfdist launch --max_restarts` starts it by itself."
        )

    def _on_loss(self, loss: Loss) -> None:
        # Nothing is said: whoever waits raises the error. Who has come to the end of its script isn't concerned.
        if loss.in_order and not self._needs_others():
            self._left = loss
        else:
            self._abort(loss)

    def _look(self) -> None:
        if self._left is not None and self._needs_others():
            self._abort(self._left)
            self._left = None
        self._stalls.look()

    def _needs_others(self) -> bool:
        return self._has_own_loop or self._waiting > 0

    def _abort(self, loss: Loss) -> None:
        self._aborted_by = loss
        with contextlib.suppress(tf.errors.OpError, RuntimeError):
            abort_collectives(str(loss))

    def _say_what_fails(self) -> None:
        """Tell the others what ends the program, before its threads and TensorFlow's are taken down."""
        upstream = sys.excepthook

        def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            upstream(kind, error, trace)
            self._mesh.close(f"{kind.__name__}: {error}"[:_MOST_CHARACTERS])

        sys.excepthook = excepthook
