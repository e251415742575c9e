"""Chooses how gradients cross the wire: times the first steps of a `fit`, each way in turns."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import keras

from tfdist._compat.keras_compression import compression_of
from tfdist.gradients.compression.automatic import FOR_GOOD, NAMES, choose
from tfdist.log import logger

#: Turns of each way, and executions of a turn; the first of a turn is not timed.
TURNS, EXECUTIONS = 4, 4


class Measuring(keras.callbacks.Callback):
    """Times executions, and tells the compression of the model's optimizer which way to go on with.

    All workers use the same way in the same step; the chief's times decide, since all workers wait for each other in
    every step.

    Args:
        strategy: whose compression is to be chosen.
    """

    def __init__(self, strategy: Any) -> None:
        super().__init__()
        self._strategy = strategy
        #: Of executions, by turn.
        self._seconds: list[list[float]] = []
        self._execution, self._begun, self._is_over = 0, 0.0, False
        self._chosen: int | None = None

    @property
    def _compression(self) -> Any:
        return compression_of(self.model.optimizer)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """What an earlier `fit` has left unfinished begins anew."""
        self._execution, self._seconds, self._is_over = 0, [[] for _ in range(TURNS * len(NAMES))], False
        self._chosen = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """The clock starts."""
        self._begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """The clock stops, and the next execution's way is set."""
        compression = self._compression
        if self._is_over or compression is None or not compression.traffic:
            return
        if compression.is_decided:
            self._is_over = True
            return
        int(self.model.optimizer.iterations)  # an accelerator has made the step by then
        seconds = time.perf_counter() - self._begun
        # The first execution, in which functions are compiled, counts for no turn.
        turn, place = divmod(self._execution - 1, EXECUTIONS)
        if self._execution and place and turn < len(self._seconds):
            self._seconds[turn].append(seconds)
        self._execution += 1
        turn, place = divmod(self._execution - 1, EXECUTIONS)
        if self._chosen is not None:
            compression.choose(FOR_GOOD[self._chosen], decided=True)  # what was owed has been sent
        elif turn == TURNS * len(NAMES):
            self._decide(compression)
        elif place == 0:
            compression.choose(turn % len(NAMES), decided=False)

    def _decide(self, compression: Any) -> None:
        said = json.loads(self._strategy.from_chief("which compression is fastest", self._fastest))
        self._chosen = int(said["way"])
        compression.choose(self._chosen, decided=False)
        times = ", ".join(f"{name} {1e3 * time:.1f} ms" for name, time in zip(NAMES, said["medians"], strict=True))
        logger.info("compression='auto': a step takes with %s; training goes on with %s", times, NAMES[said["way"]])

    def _fastest(self) -> str:
        turns = [statistics.median(one) for one in self._seconds]
        by_way = [turns[way :: len(NAMES)] for way in range(len(NAMES))]
        return json.dumps({"way": choose(by_way), "medians": [statistics.median(one) for one in by_way]})
