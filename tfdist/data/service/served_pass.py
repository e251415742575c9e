"""What data workers sent of one pass, handed out in the order of steps; see `service` for the whole."""

from __future__ import annotations

import itertools
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist._compat import tensorflow_py_functions as py_functions
from tfdist._compat.tensorflow_cancellation import Elements
from tfdist.data.reading.reader_calls import keep_error
from tfdist.errors import DataError
from tfdist.log import logger

PREFIX = "grpc://"
BEGIN, ROW = "data.served_begin", "data.served_row"
# A dispatcher that doesn't answer for so long is gone. Starting one takes TensorFlow some seconds.
DEADLINE_SECONDS = 30.0
# Longer than making a chunk of batches takes, or they would be made twice.
PATIENCE_SECONDS = 5.0
# A pass that nobody asks for so long was given up.
GIVEN_UP_SECONDS = 300.0
_PROBE_SECONDS = 2.0
# What waits for its turn: more steps than are on the way, but not more memory than this.
_WINDOW_STEPS, _WINDOW_BYTES = 256, 128 << 20


def window_of(batch_bytes: float) -> int:
    """How many batches of this size wait for their turn."""
    return max(min(_WINDOW_STEPS, int(_WINDOW_BYTES / max(batch_bytes, 1))), 16)


def wait_for(address: str) -> None:
    """Returns when the dispatcher answers.

    Raises:
        DataError: If it doesn't within `DEADLINE_SECONDS`.
    """
    begun = time.monotonic()
    while not _answers(address):
        if time.monotonic() - begun > DEADLINE_SECONDS:
            raise _gone(address)
        time.sleep(0.1)


def _answers(address: str) -> bool:
    host, _, port = address.removeprefix(PREFIX).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False


def _gone(address: str) -> DataError:
    return DataError(
        f"The dispatcher of the tf.data service must answer within {DEADLINE_SECONDS:.0f} s. Received: nothing from "
        f"{address}. Start it again (tfdist launch --data_workers=N does), or read without it: data_service=False."
    )


class Source:
    """Passes over one data set.

    Args:
        address: Of the dispatcher.
        served: Makes the data set of a pass, (step, strings) in any order, from epoch and first step.
        num_steps: Of an epoch.
        window: How many batches wait for their turn.
    """

    def __init__(self, address: str, served: Callable[..., Any], num_steps: int, window: int) -> None:
        self.address, self.served, self.num_steps, self.window = address, served, num_steps, window
        self._passes: dict[int, ServedPass] = {}
        self._numbers = itertools.count()

    def begin(self, epoch: int, first: int) -> int:
        """Begins a pass, and returns its number."""
        wait_for(self.address)
        number = next(self._numbers)
        self._passes = {key: one for key, one in self._passes.items() if not one.is_closed}
        self._passes[number] = ServedPass(self, epoch, first)
        return number

    def row(self, number: int, step: int) -> list[bytes]:
        """The strings of a step, in order; nothing if it must be read here."""
        one = self._passes.get(number)
        return one.row(step) if one is not None else []

    def close(self) -> None:
        """Ends all passes."""
        for one in self._passes.values():
            one.close()

    def __del__(self) -> None:
        self.close()


class ServedPass:
    """One pass: a thread takes what comes, `row` hands it out."""

    def __init__(self, source: Source, epoch: int, first: int) -> None:
        self._address, self._window, self._last = source.address, source.window, source.num_steps - 1
        self._due, self._rows, self._error = first, {}, None  # type: int, dict[int, list[bytes]], Exception | None
        self._asked_at = self._reached_at = self._arrived_at = time.monotonic()
        self._elements: Elements | None = None
        self._is_gone = False
        # Steps up to here that aren't there were lost.
        self._lost_upto = -1
        self._changed = threading.Condition()
        self.is_closed = first > self._last
        args = (source.served, epoch, first)
        self._thread = threading.Thread(target=self._receive, args=args, name="tfdist-served", daemon=True)
        if not self.is_closed:
            self._thread.start()

    def row(self, step: int) -> list[bytes]:
        """See `Source.row`."""
        with self._changed:
            begun = self._asked_at = time.monotonic()
            if self._is_gone:
                raise _gone(self._address)
            while step not in self._rows and not self._must_be_read_here(begun):
                self._changed.wait(0.1)
            row = self._rows.pop(step, [])
            self._due = step + 1
            if not row:
                self._skip_gaps()
            self._changed.notify_all()
        if step == self._last:
            self.close()
        return row

    def close(self) -> None:
        """Ends the pass."""
        with self._changed:
            self.is_closed = True
            self._rows.clear()
            self._changed.notify_all()
        elements = self._elements
        if elements is not None:
            elements.cancel()

    def _must_be_read_here(self, begun: float) -> bool:
        now = time.monotonic()
        if self._error is not None or self.is_closed:
            return True
        if now - self._reached_at > _PROBE_SECONDS and now - begun > _PROBE_SECONDS:
            self._probe(now)
        return self._due <= self._lost_upto or now - min(begun, self._arrived_at) > PATIENCE_SECONDS

    def _probe(self, now: float) -> None:
        if _answers(self._address):
            self._reached_at = time.monotonic()
        elif now - self._reached_at > DEADLINE_SECONDS:
            self._is_gone = True
            self.close()
            raise _gone(self._address)

    def _skip_gaps(self) -> None:
        """What is missing before a batch that is there was lost with this one: it isn't waited for again."""
        if self._rows and self._lost_upto < self._due:
            self._lost_upto = max(self._rows)
            logger.warning("input: a data worker lost batches; they are read here, from step %d on", self._due - 1)

    def _receive(self, served: Callable[..., Any], epoch: int, first: int) -> None:
        try:
            self._take(Elements(served(tf.constant(epoch, tf.int64), tf.constant(first, tf.int64))))
        except tf.errors.CancelledError:
            return
        except Exception as error:  # what is wrong with a record is found again, and said, where it's read here
            self._error = error.with_traceback(None)
            logger.warning("input: data workers failed, so the rest of the epoch is read here: %s", str(error)[:300])
        finally:
            # TensorFlow's client calls the dispatcher every second as long as there is an iterator, also a dead one.
            self._elements = None
        self._ended()

    def _take(self, elements: Elements) -> None:
        self._elements = elements
        if self.is_closed:
            return
        for step, strings in elements:
            self._keep(int(step), strings.numpy().tolist())
            if self.is_closed:
                return

    def _keep(self, step: int, strings: list[bytes]) -> None:
        with self._changed:
            self._arrived_at = time.monotonic()
            while step >= self._due + self._window and not self.is_closed:
                self._changed.wait(1.0)
                self._give_up_if_forgotten()
                if self._due + self._window <= step and self._is_stuck():
                    break
            if step >= self._due and not self.is_closed:
                self._rows[step] = strings
            self._changed.notify_all()

    def _is_stuck(self) -> bool:
        """Whether the step that is due can only come behind the one that finds no room."""
        return self._due not in self._rows

    def _give_up_if_forgotten(self) -> None:
        if time.monotonic() - self._asked_at > GIVEN_UP_SECONDS:
            self.is_closed = True
            self._rows.clear()

    def _ended(self) -> None:
        """All has come: what is missing was lost."""
        with self._changed:
            self._lost_upto = self._last
            self._changed.notify_all()


_sources: weakref.WeakValueDictionary[bytes, Source] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def add(source: Source) -> bytes:
    """Makes a source known, as long as it lives, and returns its key."""
    key = f"source-{next(_numbers)}".encode()
    _sources[key] = source
    return key


def _begin(key: bytes, epoch: Any, first: Any) -> list[Any]:
    try:
        return [np.int64(_sources[key].begin(int(epoch), int(first)))]
    except DataError as error:
        keep_error(error)
        raise


def _row(key: bytes, number: Any, step: Any) -> list[Any]:
    try:
        row = _sources[key].row(int(number), int(step))
    except DataError as error:
        keep_error(error)
        raise
    array = np.empty(len(row), object)
    array[:] = row
    return [array]


py_functions.register(BEGIN, _begin)
py_functions.register(ROW, _row)
