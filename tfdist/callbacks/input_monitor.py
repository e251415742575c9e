"""Says how fast input flows and whether training waits for it.

How long a step waited is measured by the train function of tfdist's strategies, from asking for its batches until they
are there, whatever buffers lie between.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import keras

from tfdist.callbacks.input_advice import advice
from tfdist.data.reading.flow import Flow
from tfdist.data.reading.reader_calls import readers_of_process
from tfdist.data.reading.record_reader import RecordReader
from tfdist.log import logger


class InputMonitor(keras.callbacks.Callback):
    """Adds `input_records_per_second` and `input_wait` to each epoch's logs, and warns if training waits for input.

    `input_wait` is the part of the time from an epoch's first step to its last, from 0 to 1, in which train steps
    waited for their batches; validation isn't counted. It's there under tfdist's strategies, of which
    `OneDeviceStrategy` is the one for a single device, unless op determinism forbids measuring time.
    `input_records_per_second` are the records of `read_tfrecords` that this worker trained on in this time. Put the
    monitor before callbacks that are to see them, such as TensorBoard.

    Args:
        warn_above: From which `input_wait` on to warn, once an epoch, and to say what to change. The first step of an
            epoch isn't judged.
        every_steps: Look every so many steps too, and log what was found; None for only at the end of the epoch.

    Raises:
        ValueError: If warn_above isn't from 0 to 1, or every_steps is less than 1.

    Example:
        >>> history = model.fit(train, epochs=10, callbacks=[tfdist.callbacks.InputMonitor()])
        >>> history.history["input_wait"]
        [0.03, 0.01, ...]
    """

    reads_batch_logs = False

    def __init__(self, *, warn_above: float = 0.2, every_steps: int | None = None) -> None:
        super().__init__()
        if not 0 <= warn_above <= 1:
            raise ValueError(
                "warn_above is a part of an epoch's time and must be from 0 to 1. "
                f"Received: warn_above={warn_above}. Use for example 0.2."
            )
        if every_steps is not None and every_steps < 1:
            raise ValueError(
                f"every_steps must be at least 1. Received: every_steps={every_steps}. "
                "Leave it out to look at the end of each epoch."
            )
        self._warn_above, self._every_steps = warn_above, every_steps
        self._epoch, self._has_warned = 0, False
        self._found: dict[str, float] = {}
        self._all: _Interval | None = None
        self._window: _Interval | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts counting."""
        self._epoch, self._has_warned, self._found = epoch, False, {}
        self._all, self._window = _Interval(self.model), _Interval(self.model)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Starts the clock; making the iterator, before the first step, isn't counted."""
        for interval in (self._all, self._window):
            if interval is not None and not interval.steps:
                interval.begin()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts the steps of an execution."""
        if self._all is None or self._window is None:
            return
        self._all.add(batch + 1)
        if self._every_steps is None:
            return
        self._window.add(batch + 1)
        if self._window.steps >= self._every_steps:
            self._report(self._window)
            self._window = _Interval(self.model, batch + 1)

    def on_test_begin(self, logs: Any = None) -> None:
        """Ends the epoch's training, if it's validated."""
        self._finish()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds to the logs."""
        self._finish()
        if logs is not None:
            logs.update(self._found)

    def _finish(self) -> None:
        if self._found or self._all is None or not self._all.steps:
            return
        self._found = self._all.logs()
        if self._every_steps is None:
            self._report(self._all)

    def _report(self, interval: _Interval) -> None:
        found = interval.logs()
        if self._every_steps:
            logger.info(
                "input: epoch %d, steps %d to %d: %s",
                self._epoch + 1,
                interval.first,
                interval.behind - 1,
                ", ".join(f"{name} {value:,.2f}" for name, value in found.items()),
            )
        wait = interval.steady_wait()
        if self._has_warned or wait is None or wait <= self._warn_above:
            return
        self._has_warned = True
        logger.warning(
            "input: in epoch %d training waited for input %.0f%% of the time. %s",
            self._epoch + 1,
            100 * wait,
            advice(interval.readers()),
        )


class _Interval:
    """Steps of one epoch one after another.

    Attributes:
        first: Its first step.
        behind: The one behind the last.
    """

    def __init__(self, model: Any, first: int = 0) -> None:
        self._model, self.first, self.behind = model, first, first
        self._flows = {reader: reader.flow.read() for reader in readers_of_process()}
        self._waited: float | None = 0.0
        self._judged_wait = 0.0
        self.begin()

    def begin(self) -> None:
        """The first step begins now."""
        self._begun = self._ended = self._judged_from = time.monotonic()

    @property
    def steps(self) -> int:
        """How many."""
        return self.behind - self.first

    def add(self, behind: int) -> None:
        """One more execution, of all steps before `behind`."""
        # A pass starts with empty buffers, and the first step may be traced: that says nothing about the rest.
        is_first = self.steps == 0 and self.first == 0
        waited = getattr(self._model.train_function, "waited_seconds", None)
        self.behind, self._ended = behind, time.monotonic()
        self._waited = None if waited is None or self._waited is None else self._waited + waited
        if is_first:
            self._judged_from = self._ended
        else:
            self._judged_wait += waited or 0.0

    def logs(self) -> dict[str, float]:
        """What goes into the epoch's logs."""
        seconds = max(self._ended - self._begun, 1e-9)
        found = {} if self._waited is None else {"input_wait": min(self._waited / seconds, 1.0)}
        flows = [flow for _, flow in self._since() if flow.steps]
        if flows:
            # What is noted of a pass may lack its last steps, or be ahead of training.
            found["input_records_per_second"] = sum(self.steps * flow.rows / flow.steps for flow in flows) / seconds
        return found

    def steady_wait(self) -> float | None:
        """As `input_wait`, without the first step of the epoch; None if there is nothing else, or it isn't known."""
        seconds = self._ended - self._judged_from
        return min(self._judged_wait / seconds, 1.0) if seconds > 0 and self._waited is not None else None

    def readers(self) -> Sequence[RecordReader]:
        """Those that handed out batches."""
        return [reader for reader, flow in self._since() if flow.steps]

    def _since(self) -> list[tuple[RecordReader, Flow]]:
        nothing = Flow()
        return [(reader, reader.flow.read().since(self._flows.get(reader, nothing))) for reader in readers_of_process()]
