"""Watches that replicas, which are to have the same weights, have them."""

from __future__ import annotations

from typing import Any

import keras

from tfdist import _compat
from tfdist.strategies.equal_weights import check_equal_weights
from tfdist.strategies.local_sgd import LocalSGDStrategy
from tfdist.strategies.synchronous import SynchronousStrategy


class ConsistencyGuard(keras.callbacks.Callback):
    """Compares the weights of all replicas every so many steps, and stops training where they differ.

    Replicas of a synchronous strategy begin with the same weights and make the same updates, so that they stay equal to
    the bit. A memory error, a device that computes wrongly or code that runs on one worker only makes them drift apart
    without a word; what is saved is then the chief's. `fit` itself compares once, when it begins.

    Args:
        every_steps: batches from one comparison to the next; the last one is when `fit` ends. A comparison reads every
            weight once, and sends about 30 bytes a variable.

    Raises:
        ValueError: every_steps is less than 1; or, when `fit` begins, the model isn't under a strategy whose replicas
            have equal weights after every step.
        WorkersDisagreeError: in `fit`, on every worker: names the first variable that differs, and the worker.

    Example:
        >>> model.fit(dataset, epochs=10, callbacks=[tfdist.callbacks.ConsistencyGuard(every_steps=500)])
    """

    reads_batch_logs = False

    def __init__(self, *, every_steps: int = 1000) -> None:
        super().__init__()
        if every_steps < 1:
            raise ValueError(
                f"Expected: every_steps of at least 1. Received: every_steps={every_steps}. Use for example 1000."
            )
        _compat.install()
        self._every = every_steps
        self._steps = self._compared = self._before = self._epoch = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begins anew."""
        strategy = self.model.distribute_strategy
        if not isinstance(strategy, SynchronousStrategy) or isinstance(strategy, LocalSGDStrategy):
            raise ValueError(
                "Expected: a model under tfdist.MirroredStrategy or tfdist.MultiWorkerMirroredStrategy, whose replicas "
                f"are equal after every step. Received: {type(strategy).__name__}. LocalSGDStrategy compares replicas "
                "itself after each averaging; elsewhere there is one copy of the weights."
            )
        self._steps = self._compared = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Batches count from 0 again."""
        self._epoch, self._before = epoch, self._steps

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Compares if it is time."""
        self._steps = self._before + batch + 1
        if self._steps // self._every > self._compared // self._every:
            self._compare()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Compares what has changed since."""
        if self._steps > self._compared:
            self._compare()

    def _compare(self) -> None:
        self._compared = self._steps
        strategy = self.model.distribute_strategy
        occasion = f"epoch {self._epoch}, step {self._steps} of fit"
        check_equal_weights(strategy, strategy.equal_variables(self.model), occasion)
