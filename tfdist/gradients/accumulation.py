"""Gradient accumulation: K micro-batches, one all-reduce, one optimizer step, equal to one batch of all their rows.

With n_rk rows of micro-batch k on replica r, and g_rk the gradient of their mean loss, the gradient of the global
batch's mean loss is

    g = sum_k sum_r n_rk g_rk / sum_k sum_r n_rk

so every replica adds up n_rk g_rk and n_rk by itself; after K micro-batches both are summed over the replicas, in one
all-reduce for all of them, and divided. What Keras does with a gradient comes after that: clipping, weight decay, the
finite check of LossScaleOptimizer, learning rate schedules and averages see optimizer steps only, which
`optimizer.iterations` counts.

The way of one micro-batch, under any strategy:

    optimizer.apply (in each replica)       weights its gradients, adds them to its slots
      -> end of the micro-step (merged)     counts it; if it was the K-th:
         -> sums (in each replica)          the all-reduce, the mean, the slots cleared; see `reduction.py`
         -> skip rules                      on the mean; a reason to skip is counted
         -> update (in each replica)        Keras' own `apply` on the mean

A loss with a divisor of its own (valid tokens, a sum of sample weights) weighs by that instead of by rows, where it is
the only one; see `ReplicaStep.micro_batch_weight`.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.keras_optimizers import build_if_needed, gradient_accumulation_steps, loss_scale_of, variable_index
from tfdist.errors import TfdistError
from tfdist.gradients.accumulation_options import AccumulationOptions
from tfdist.gradients.accumulators import Accumulators, Sums
from tfdist.gradients.fit_callbacks import fit_callbacks
from tfdist.gradients.reduction import Reduced, reduction_of, sum_over_replicas, weighted
from tfdist.gradients.skipping import Skipping
from tfdist.gradients.slots import kind_of, slot_dtype
from tfdist.gradients.step import ReplicaStep, count_rows, current_end_of_batch, current_micro_batch_weight

#: Keras' own `apply` of the optimizer: of gradients, in each replica, for variables.
Update = Callable[[list[Any], list[Any]], None]


@dataclasses.dataclass(frozen=True)
class Target:
    """What an accumulation ends in: the variables that a train step updates, their places in the optimizer, and how."""

    optimizer: Any
    variables: list[Any]
    indices: list[int]
    update: Update


class GradientAccumulation:
    """What `apply` of one optimizer does in place of a step for each batch.

    Args:
        optimizer: a Keras optimizer that is not inside another one.
        settings: gives the options, which may change between micro-batches.
    """

    def __init__(self, optimizer: Any, settings: Callable[[], AccumulationOptions]) -> None:
        self._settings = settings
        self._optimizer = weakref.ref(optimizer)
        self.options = settings()
        self.state = Accumulators(
            optimizer,
            rules=self._rule_names,
            steps=self._fixed_steps,
            dtype=lambda: self.options.dtype,
            sums=self.sums,
        )
        self._strategy: Any = None
        self._target: Target | None = None
        self._without: set[int] = set()
        self._compiled: dict[str, Any] = {}
        self._held: tuple[np.ndarray, Sums] | None = None

    @property
    def has_own_steps(self) -> bool:
        """Whether the Keras optimizer asks for a number of micro-batches itself."""
        return gradient_accumulation_steps(self._optimizer()) is not None

    @property
    def micro_steps(self) -> int:
        """Micro-batches since the last optimizer step."""
        return 0 if self.state.is_empty() else int(self.state.micro_step.numpy())

    @property
    def position(self) -> str:
        """How far it is, the same on all workers."""
        return f"{int(self.state.flushes.numpy())}.{self.micro_steps}" if self.state.is_made else "0.0"

    @property
    def skip_counts(self) -> dict[str, int]:
        """How often each skip rule left out an update, by the name it has in logs."""
        if not self.state.is_made:
            return {}
        return {f"skipped_{name}": int(count.numpy()) for name, count in self.state.skipped.items()}

    def refresh(self) -> None:
        """Take over what the user has changed since; eagerly."""
        options = self._settings()
        if options != self.options:
            self.options = options
            self._compiled.clear()
        if self.state.is_made:
            self.state.steps.assign(self._fixed_steps())

    def _rule_names(self) -> list[str]:
        return [rule.__name__ for rule in self.options.skip_rules]

    def _fixed_steps(self) -> int:
        return 1 if callable(self.options.steps) else int(self.options.steps)

    def forget_traces(self) -> None:
        """Compiled train functions are out of use: variables may have gradients that had none."""
        self._without.clear()

    def counting_rows(self, train_step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A model's train step, for models without a tfdist strategy, so that micro-batches weigh by their rows."""

        def step(data: Any) -> Any:
            with hooks.step_scope(ReplicaStep(count_rows(data), in_keras=True)):
                return train_step(data)

        return step

    def fit_callbacks(self, data: Any = None, steps_per_epoch: int | None = None) -> list[Any]:
        """What accumulation does around a `fit`."""
        return fit_callbacks(with_skip_rules=bool(self.options.skip_rules))

    # In each replica.

    def apply_gradients(self, optimizer: Any, gradients: list[Any], variables: list[Any], update: Update) -> None:
        """Take one micro-batch's gradients; in replica context, not in a function or conditional inside it."""
        context = tf.distribute.get_replica_context()
        build_if_needed(optimizer, variables)
        target = Target(optimizer, variables, [variable_index(optimizer, v) for v in variables], update)
        context.merge_call(lambda strategy: self._prepare(strategy, target, gradients))
        factor, weight = current_micro_batch_weight()
        for index, gradient in zip(target.indices, gradients, strict=True):
            if gradient is not None:
                slot = self.state.slots[index]
                slot.add(weighted(tf.cast(gradient, slot.dtype), factor))
        self.state.weight.assign_add(tf.cast(weight, self.state.weight.dtype))
        ends_batch = current_end_of_batch()
        context.merge_call(lambda strategy: self._end_micro_step(strategy, target, ends_batch))

    def _take(self, indices: list[int]) -> tuple[list[Any], tf.Tensor]:
        """This replica's sums of gradients and of weights; the slots are empty afterwards."""
        sums = [self.state.slots[index].read() for index in indices]
        weight = self.state.weight.read_value()
        self.state.clear()
        return sums, weight

    def _update(self, target: Target, means: list[Any]) -> None:
        rest = iter(means)
        gradients = [next(rest) if index in self.state.slots else None for index in target.indices]
        typed = [None if g is None else tf.cast(g, v.dtype) for g, v in zip(gradients, target.variables, strict=True)]
        target.update(typed, target.variables)

    # In cross-replica context.

    def _prepare(self, strategy: Any, target: Target, gradients: list[Any]) -> None:
        """Make the slots of the variables that have gradients, whatever was traced before."""
        if strategy.num_replicas_in_sync > 1 and hooks.hooks_of(strategy) is None:
            raise ValueError(
                "Expected: one device, or a strategy of tfdist such as tfdist.MirroredStrategy. Received: "
                f"accumulate() under {type(strategy).__name__} with {strategy.num_replicas_in_sync} replicas. "
                "Use tfdist's strategy of the same name."
            )
        wanted = {}
        for index, variable, gradient in zip(target.indices, target.variables, gradients, strict=True):
            if gradient is None:
                self._without.add(index)
                continue
            if index in self._without and index not in self.state.slots:
                raise TfdistError(
                    "Expected: the same variables to have gradients in every micro-batch of a training step. "
                    f"Received: a gradient for {variable.name!r}, which had none before. Multiply the loss of the "
                    "part that is left out by zero, in place of leaving it out."
                )
            wanted[index] = (kind_of(gradient), variable.shape, slot_dtype(variable.dtype, self.options.dtype))
        self.state.make(strategy, wanted)
        if self._target is None or self._target.indices != target.indices:
            self._compiled.clear()
            self._target = target
        self._strategy = strategy
        hooks.note_accumulation(self)

    def _end_micro_step(self, strategy: Any, target: Target, ends_batch: tf.Tensor | None) -> None:
        ends_batch = tf.constant(True) if ends_batch is None else ends_batch
        if tf.get_static_value(ends_batch) is not None and not tf.get_static_value(ends_batch):
            return  # A conditional that holds the variables would have the next micro-batch wait for this one.
        self.state.micro_step.assign_add(tf.cast(ends_batch, tf.int32))
        full = ends_batch & (self.state.micro_step.read_value() >= self._steps_now(target))
        tf.cond(full, lambda: self._flush(strategy, target), lambda: 0)

    def _steps_now(self, target: Target) -> tf.Tensor:
        if not callable(self.options.steps):
            return self.state.steps.read_value()
        done = tf.convert_to_tensor(target.optimizer.iterations)
        return tf.maximum(tf.cast(tf.math.round(tf.cast(self.options.steps(done), tf.float32)), tf.int32), 1)

    def _flush(self, strategy: Any, target: Target) -> int:
        """One optimizer step with what is there."""
        each = strategy.extended.call_for_each_replica
        indices = [index for index in target.indices if index in self.state.slots]
        reduction = reduction_of(target.optimizer)
        reduced = reduction.means(strategy, lambda: self._take(indices), indices)
        self.state.micro_step.assign(0)
        self.state.flushes.assign_add(1)

        def update(reduced: Reduced) -> None:
            self._update(target, reduced.gradients)
            reduction.commit(reduced.state)

        skipping = Skipping(self.options.skip_rules, self.state)
        scale = loss_scale_of(target.optimizer)
        skipping.unless(strategy, reduced.gradients, scale, lambda: each(update, (reduced,)))
        return 0

    # Eagerly, on every worker.

    def end_epoch(self) -> None:
        """Do with fewer than K micro-batches what the options say."""
        if self.options.leftover == "flush":
            self.flush()
        elif self.options.leftover == "drop":
            self.drop()

    def flush(self) -> None:
        """An optimizer step with the micro-batches that wait for one, if any; call it on every worker."""
        target = self._target
        if self.micro_steps and target is not None:
            self._call("flush", lambda: self._flush(self._strategy, target))

    def drop(self) -> None:
        """Forget the micro-batches that wait for an optimizer step."""
        if self.micro_steps:
            self._call("drop", lambda: self._strategy.extended.call_for_each_replica(self.state.clear))
            self.state.micro_step.assign(0)

    def sums(self) -> tuple[np.ndarray, Sums] | None:
        """Weight and gradients summed over the replicas, as they go into a file; None where they can't be had."""
        if self._held is not None:
            return self._held
        several = getattr(self._strategy, "num_workers", 1) > 1
        if several and not self._strategy.save_together("checkpoint", {"accumulation": self.position}):
            return None
        return self._reduced_sums()

    def hold(self) -> None:
        """Reduce the sums for a file that the chief is about to write; call it on every worker."""
        self._held = self._reduced_sums()

    def release(self) -> None:
        """The file is written."""
        self._held = None

    def _reduced_sums(self) -> tuple[np.ndarray, Sums]:
        slots = sorted(self.state.slots.items())
        if self._is_on_mesh:
            arrays = {index: [variable.numpy() for variable in slot.variables] for index, slot in slots}
            return np.asarray(self.state.weight.numpy()), arrays

        def in_replica() -> list[Any]:
            return sum_over_replicas([self.state.weight.read_value(), *(slot.read() for _, slot in slots)])

        values = self._call("sums", lambda: self._strategy.extended.call_for_each_replica(in_replica))
        weight, *sums = [self._strategy.experimental_local_results(value)[0] for value in values]
        return np.asarray(weight), {index: _arrays(total) for (index, _), total in zip(slots, sums, strict=True)}

    def _call(self, name: str, function: Callable[[], Any]) -> Any:
        if self._is_on_mesh:
            return self._strategy.call_on_mesh(lambda: self._call_compiled(name, function), (), {})
        return self._call_compiled(name, function)

    @property
    def _is_on_mesh(self) -> bool:
        return getattr(self._strategy, "splits_operations", False)

    def _call_compiled(self, name: str, function: Callable[[], Any]) -> Any:
        with self._strategy.scope():
            if name not in self._compiled:
                traced = tf.function(tf.autograph.experimental.do_not_convert(function))
                self._compiled[name] = traced.get_concrete_function()
            return self._compiled[name]()


def _arrays(total: Any) -> list[np.ndarray]:
    parts = [total.values, total.indices] if isinstance(total, tf.IndexedSlices) else [total]
    return [np.asarray(part) for part in parts]
