"""What replicas keep of compressed gradients: the errors that they owe, and what compressors need from step to step.

tfdist's own checkpoints have every replica's states by themselves (checkpoint/state.py), so training goes on to the
same bits. Keras' and TensorFlow's files have each state once:

    errors, and what else adds up    their sum over all replicas; each replica goes on with an even part of it
    shared states                    as they are on any replica

Plain Keras leaves them alone. With another compressor than the file's, or none in the file, states begin anew.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist._compat.keras_optimizers import strategy_of, trainable_variables_of
from tfdist._compat.keras_saveable_state import SaveableState
from tfdist.gradients.checkpoint_state import from_bytes, to_bytes
from tfdist.gradients.compression.compressor import Compressor
from tfdist.gradients.slots import local_variable
from tfdist.log import logger


class CompressionState(SaveableState):
    """All states of one optimizer's gradients; made at its first step, or when a file is loaded.

    Args:
        optimizer: whose gradients are compressed.
        compressor: how.
        whole: gives each state once, as files have them, by name; None where that can't be had. `together` says that
            all workers are in the same call.

    Attributes:
        variables: each replica's own copy, by the variable's number in the optimizer and the state's name: "3_error".
    """

    def __init__(
        self, optimizer: Any, compressor: Compressor, whole: Callable[..., dict[str, np.ndarray] | None]
    ) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._compressor, self._whole = compressor, whole
        self.variables: dict[str, tf.Variable] = {}
        self._pending: dict[str, np.ndarray] = {}

    def make(self, strategy: Any, shapes: dict[int, tuple[int, ...]]) -> None:
        """Make what is not there; in cross-replica context.

        Args:
            strategy: whose replicas compress.
            shapes: of variables, by their numbers in the optimizer.
        """
        with tf.init_scope(), strategy.scope():
            for index, shape in shapes.items():
                for name, value in self._compressor.initial_state(index, shape).items():
                    if f"{index}_{name}" not in self.variables:
                        self.variables[f"{index}_{name}"] = local_variable(value, f"compression_{name}")
        if self._pending:
            pending, self._pending = self._pending, {}
            self._restore(pending)

    def make_named(self, strategy: Any, names: Iterable[str]) -> None:
        """Make what a checkpoint has, of states of the names that `variables` has."""
        trainable = trainable_variables_of(self._optimizer())
        indices = sorted({int(name.split("_")[0]) for name in names})
        self.make(strategy, {index: tuple(trainable[index].shape) for index in indices})

    def of(self, index: int) -> dict[str, tf.Tensor]:
        """The states of a variable, in a replica."""
        prefix = f"{index}_"
        return {
            name.removeprefix(prefix): variable.read_value()
            for name, variable in self.variables.items()
            if name.startswith(prefix)
        }

    def is_shared(self, name: str) -> bool:
        """Whether a state of `variables` is the same on all replicas."""
        return name.split("_", 1)[1] in self._compressor.shared

    # What Keras asks for when it saves and loads.

    def save_own_variables(self, store: Any) -> None:
        """Keep each state once."""
        for name, array in self.whole(together=False).items():
            store[name] = array

    def whole(self, *, together: bool) -> dict[str, np.ndarray]:
        """Each state once, by name.

        Args:
            together: whether all workers are in the same call.
        """
        return (self._whole(together=together) or {}) if self.variables else {}

    def load_own_variables(self, store: Any) -> None:
        """Go on from what a file holds."""
        arrays = {name: np.asarray(store[name]) for name in list(store.keys())}
        if arrays and not getattr(self._optimizer(), "built", False):
            self._pending = arrays
        elif arrays or self.variables:
            self._restore(arrays)

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        strategy = strategy_of(self._optimizer())
        self.make_named(strategy, arrays)
        unknown = arrays.keys() - self.variables.keys()
        if unknown:
            logger.warning(
                "compression begins anew: the file has states of another compressor, %s", sorted(unknown)[:3]
            )
            arrays = {}
        with tf.init_scope(), strategy.scope():
            for name, variable in self.variables.items():
                value = self._initial(name) if name not in arrays else arrays[name]
                if name in arrays and not self.is_shared(name):
                    value = value / np.float32(strategy.num_replicas_in_sync)
                for copy in strategy.experimental_local_results(variable):
                    copy.assign(value)

    def _initial(self, name: str) -> np.ndarray:
        index, kind = name.split("_", 1)
        shape = tuple(trainable_variables_of(self._optimizer())[int(index)].shape)
        return self._compressor.initial_state(int(index), shape)[kind]


class CompressionCheckpoint(tf.train.experimental.PythonState):
    """The same in a `tf.train.Checkpoint` that holds the optimizer."""

    def __init__(self, state: CompressionState) -> None:
        self._state = state

    def serialize(self) -> bytes:
        """Each state once; called when a checkpoint is saved, on every worker that saves."""
        return to_bytes(self._state.whole(together=True))

    def deserialize(self, string_value: bytes) -> None:
        """Go on from a checkpoint."""
        self._state.load_own_variables(from_bytes(string_value))
