"""The state of gradient accumulation: sums of gradients and of their weights, and how far the accumulation is.

Keras' files (`.keras`, `.weights.h5`, and so `ModelCheckpoint` and `BackupAndRestore`) hold it beside the optimizer:
the sums over all replicas, which are loaded into the chief's first replica, so that the job that goes on may have
another number of replicas. Plain Keras leaves it alone. Between optimizer steps there is nothing to keep.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.keras_optimizers import strategy_of, trainable_variables_of
from tfdist._compat.keras_saveable_state import SaveableState
from tfdist._compat.keras_weight_places import ValuesInParts, VariableEntry
from tfdist.gradients.slots import SLOTS, Slot, assign_first, local_variable, slot_dtype
from tfdist.gradients.step import weight_dtype

#: A slot's sum over all replicas: a dense array, or rows and their indices.
Sums = dict[int, list[np.ndarray]]


class Accumulators(SaveableState):
    """All variables of one optimizer's accumulation; made at its first micro-batch, or when a file is loaded.

    Args:
        optimizer: whose gradients are added up.
        rules: gives the names of the skip rules.
        steps: gives K, or 1 where it is a function.
        dtype: gives the sums' dtype; None for that of variables.
        sums: gives the weight and the slots' sums over all replicas; None where they can't be had.

    Attributes:
        slots: by the index of the optimizer's variable.
        micro_step: micro-batches since the last optimizer step, an int32 scalar.
        steps: K, an int32 scalar; read where K is a number.
        weight: this replica's sum of weights, a float scalar.
        flushes: times that sums were reduced, an int64 scalar.
        skipped: times that a rule said so, an int64 scalar for each rule's name.
    """

    micro_step: tf.Variable
    steps: tf.Variable
    weight: tf.Variable
    flushes: tf.Variable

    def __init__(
        self,
        optimizer: Any,
        *,
        rules: Callable[[], Sequence[str]],
        steps: Callable[[], int],
        dtype: Callable[[], str | None],
        sums: Callable[[], tuple[np.ndarray, Sums] | None],
    ) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._rules, self._first_steps, self._dtype, self._sums = rules, steps, dtype, sums
        self.slots: dict[int, Slot] = {}
        self.skipped: dict[str, tf.Variable] = {}
        self.is_made = False
        self._pending: dict[str, np.ndarray] = {}

    def make(self, strategy: Any, slots: dict[int, tuple[str, tf.TensorShape, Any]]) -> None:
        """Make the counters, and the slots that are not there; in cross-replica context.

        Args:
            strategy: whose replicas accumulate.
            slots: kind, shape and dtype by index of the variable.
        """
        with tf.init_scope(), strategy.scope():
            if not self.is_made:
                self._make_counters()
            for name in (rule for rule in self._rules() if rule not in self.skipped):
                self.skipped[name] = _counter(0, tf.int64, f"skipped_{name}")
            for index, (kind, shape, dtype) in slots.items():
                if index not in self.slots:
                    with _beside(strategy, trainable_variables_of(self._optimizer())[index]):
                        self.slots[index] = SLOTS[kind](shape, dtype)
        if self._pending:
            pending, self._pending = self._pending, {}
            self._restore(pending)

    def _make_counters(self) -> None:
        self.micro_step = _counter(0, tf.int32, "micro_step")
        self.steps = _counter(self._first_steps(), tf.int32, "gradient_accumulation_steps")
        self.flushes = _counter(0, tf.int64, "flushes")
        self.weight = local_variable(tf.zeros([], weight_dtype()), "accumulated_weight")
        self.is_made = True

    def clear(self) -> None:
        """Forget what was added up, in a replica."""
        self.weight.assign(tf.zeros_like(self.weight))
        for slot in self.slots.values():
            slot.clear()

    def is_empty(self) -> bool:
        """Whether no micro-batch waits for its optimizer step; eagerly."""
        return not self.is_made or int(self.micro_step.numpy()) == 0

    def replica_variables(self, *, with_sums: bool = True) -> dict[str, tf.Variable]:
        """What decides the next optimizer step, by name; between steps only how many there were.

        Args:
            with_sums: whether the sums of gradients are wanted.
        """
        if not self.is_made:
            return {}
        found = {"micro_step": self.micro_step, "flushes": self.flushes, "weight": self.weight}
        found |= {f"skipped_{name}": count for name, count in self.skipped.items()}
        slots = {} if self.is_empty() or not with_sums else self.slots
        return found | {
            f"slot_{index}_{part}": variable
            for index, slot in slots.items()
            for part, variable in enumerate(slot.variables)
        }

    # What Keras asks for when it saves and loads.

    def save_own_variables(self, store: Any) -> None:
        """Keep what was added up over all replicas; nothing between optimizer steps."""
        if isinstance(store, VariableEntry) and not self.is_empty():
            store |= {"micro_step": np.asarray(int(self.micro_step.numpy())), "weight": self.weight.numpy()}
            for index, slot in self.slots.items():
                store |= {f"{index}_{slot.kind}_{part}": one for part, one in enumerate(slot.variables)}
            return
        kept = None if self.is_empty() else self._sums()
        if kept is None:
            return
        weight, sums = kept
        store["micro_step"], store["weight"] = np.asarray(int(self.micro_step.numpy())), weight
        for index, arrays in sums.items():
            for part, array in enumerate(arrays):
                store[f"{index}_{self.slots[index].kind}_{part}"] = array

    def load_own_variables(self, store: Any) -> None:
        """Go on from what a file holds; from nothing if it was saved between optimizer steps, or by plain Keras."""
        if isinstance(store, ValuesInParts) and store.are_in_parts:
            self._load_in_parts(store)
            return
        arrays = {name: np.asarray(store[name]) for name in list(store.keys())}
        if arrays and not getattr(self._optimizer(), "built", False):
            self._pending = arrays
        elif arrays or self.is_made:
            self._restore(arrays)

    def _load_in_parts(self, store: ValuesInParts) -> None:
        """As `_restore`, each device its part."""
        variables, names = trainable_variables_of(self._optimizer()), set(store.keys()) - {"micro_step", "weight"}
        sparse = sorted(name for name in names if "_sparse_" in name)
        if sparse:
            raise ValueError(
                "expected: a checkpoint between two optimizer steps, or with sums of tables, as a mesh has them. "
                f"Received: rows for {variables[int(sparse[0].split('_')[0])].path!r}"
            )
        if not names and not self.is_made:
            return
        indices = {int(name.split("_")[0]): name for name in names}
        kinds = {i: ("dense", variables[i].shape, slot_dtype(variables[i].dtype, self._dtype())) for i in indices}
        self.make(strategy_of(self._optimizer()), kinds)
        self.micro_step.assign(int(store["micro_step"]) if names else 0)
        self.weight.assign(store["weight"] if names else 0.0)
        for index, slot in self.slots.items():
            (total,) = slot.variables
            if index in indices:
                store.expect(indices[index], total)
                total.assign(store[indices[index]])
            else:
                slot.clear()

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        strategy, sums = strategy_of(self._optimizer()), _sums_of(arrays)
        variables = trainable_variables_of(self._optimizer())
        wanted = {
            index: (kind, variables[index].shape, tf.as_dtype(parts[0].dtype)) for index, (kind, parts) in sums.items()
        }
        self.make(strategy, wanted)
        here = getattr(strategy, "is_chief", True)
        with tf.init_scope(), strategy.scope():
            self.micro_step.assign(int(arrays.get("micro_step", 0)))
            weight = tf.constant(arrays.get("weight", 0.0), self.weight.dtype)
            assign_first(self.weight, weight, strategy, here=here)
            for index, slot in self.slots.items():
                _, parts = sums.get(index, ("", []))
                slot.restore(parts, strategy, here=here)


def _beside(strategy: Any, variable: Any) -> contextlib.AbstractContextManager[Any]:
    own = hooks.hooks_of(strategy)
    return contextlib.nullcontext() if own is None else own.beside(variable)


def _counter(value: int, dtype: tf.DType, name: str) -> tf.Variable:
    aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(value, trainable=False, dtype=dtype, aggregation=aggregation, name=name)


def _sums_of(arrays: dict[str, np.ndarray]) -> dict[int, tuple[str, list[np.ndarray]]]:
    sums: dict[int, tuple[str, list[np.ndarray]]] = {}
    for name in sorted(arrays):
        if name not in ("micro_step", "weight"):
            index, kind, _ = name.split("_")
            sums.setdefault(int(index), (kind, []))[1].append(arrays[name])
    return sums
