"""What files hold of an averaging, beside what plain Keras keeps of model and optimizer.

Files are written right after an averaging, so weights, moving statistics and anchors are what Keras saves already. The
rest is here: the outer optimizer's variables, with inner_state="keep" every replica's momentum and the like, and with a
compressor what every replica owes. Plain Keras leaves it alone, and finds the chief's first replica's momentum where it
looks for an optimizer's variables.

    another number of replicas than when the file was written: each goes on with the mean of the replicas' momentum, and
        with an even part of what they owed together
    a file of plain Keras: the outer optimizer begins anew, each replica has the momentum that the file holds
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist._compat.keras_averaging import rule_state_of
from tfdist._compat.keras_saveable_state import SaveableState
from tfdist.gradients.checkpoint_state import from_bytes, to_bytes
from tfdist.log import logger


class AveragingState(SaveableState):
    """The part of Keras' files that is an averaging's.

    Args:
        averaging: a `LocalAveraging`.
    """

    def __init__(self, averaging: Any) -> None:
        self._owner = weakref.ref(averaging)
        #: Every replica's rule state [replicas, ...] in the optimizer's order, while a file is written.
        self._held: list[np.ndarray] | None = None
        self._owed: list[np.ndarray] = []
        self._pending: dict[str, np.ndarray] = {}

    @property
    def _averaging(self) -> Any:
        return self._owner()

    def hold(self) -> None:
        """Gather what the file is to hold of every replica; call it on every worker."""
        averaging = self._averaging
        self._held = averaging.gathered_rule_state() if averaging.keeps_rule_state_apart else None
        self._owed = averaging.gathered("owed", [variable for variable, _ in averaging.owed])

    @contextlib.contextmanager
    def held(self, what: str) -> Iterator[None]:
        """While `what` is written: averaged, and every replica's state at hand, if all workers write it."""
        strategy = self._averaging.strategy
        strategy.before_write(what)
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """The file is written."""
        self._held, self._owed = None, []

    def save_own_variables(self, store: Any) -> None:
        """Keep the outer optimizers' variables, and the replicas' own ones if they are held."""
        for index, array in enumerate(self._held or ()):
            store[f"inner_{index}"] = array
        for index, array in enumerate(self._owed):
            store[f"owed_{index}"] = array
        for fragment, part in enumerate(self._averaging.fragments):
            for index, variable in enumerate(part.state):
                store[f"outer_{fragment}_{index}"] = np.asarray(variable.numpy())

    def load_own_variables(self, store: Any) -> None:
        """Go on from what a file holds."""
        self.load_later(store)
        self.restore_pending()

    def load_later(self, store: Any) -> None:
        """Go on from what a file holds, when `restore_pending` is called."""
        self._averaging.forget_steps()
        self._pending = {name: np.asarray(store[name]) for name in list(store.keys())}

    def restore_pending(self) -> None:
        """Take over what was loaded, if there are variables for it."""
        if self._pending and self._averaging.optimizer.built:
            pending, self._pending = self._pending, {}
            self._restore(pending)

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        averaging = self._averaging
        averaging.make()
        with tf.init_scope(), averaging.strategy.scope():
            for fragment, part in enumerate(averaging.fragments):
                for index, variable in enumerate(part.state):
                    value = arrays.get(f"outer_{fragment}_{index}")
                    if value is not None:
                        variable.assign(value)
            for index, variable in enumerate(rule_state_of(averaging.optimizer)):
                if f"inner_{index}" in arrays:
                    name = f"the {variable.path} that replicas had apart, averaged"
                    _assign_replicas(averaging.strategy, variable.value, arrays[f"inner_{index}"], name)
            for index, (variable, adds_up) in enumerate(averaging.owed):
                if f"owed_{index}" in arrays:
                    saved = arrays[f"owed_{index}"]
                    saved = saved * (len(saved) / averaging.strategy.num_replicas_in_sync) if adds_up else saved
                    _assign_replicas(averaging.strategy, variable, saved, "an even part of what replicas owed")


def _assign_replicas(strategy: Any, variable: Any, values: np.ndarray, name: str) -> None:
    copies = strategy.experimental_local_results(variable)
    if len(values) != strategy.num_replicas_in_sync:
        logger.warning(
            "the file was saved by %d replicas; each of the %d now goes on with %s",
            len(values),
            strategy.num_replicas_in_sync,
            name,
        )
        values = np.broadcast_to(values.mean(0, dtype=np.float64), [strategy.num_replicas_in_sync, *values.shape[1:]])
    first = strategy.worker_index * len(copies)
    for index, copy in enumerate(copies):
        copy.assign(tf.cast(values[first + index], copy.dtype))


class AveragingCheckpoint(tf.train.experimental.PythonState):
    """The same in a `tf.train.Checkpoint` that holds the optimizer."""

    def __init__(self, state: AveragingState) -> None:
        self._state = state

    def serialize(self) -> bytes:
        """Average, and what then is to be kept; called when a checkpoint is saved, on every worker that saves."""
        arrays: dict[str, np.ndarray] = {}
        with self._state.held("checkpoint"):
            self._state.save_own_variables(arrays)
        return to_bytes(arrays)

    def deserialize(self, string_value: bytes) -> None:
        """Go on from a checkpoint; later, since TensorFlow restores the optimizer's variables after this."""
        self._state.load_later(from_bytes(string_value))
