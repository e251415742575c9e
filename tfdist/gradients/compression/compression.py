"""Compression of one optimizer's gradients: the variables behind a compressor, and the step around it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist._compat.keras_compression import attach_compression
from tfdist._compat.keras_optimizers import build_if_needed, loss_scale_of, variable_index
from tfdist.gradients.compression.automatic import Automatic
from tfdist.gradients.compression.compressor import Compressor, State
from tfdist.gradients.compression.exchange import Exchange, Traffic, bytes_of
from tfdist.gradients.compression.state import CompressionCheckpoint, CompressionState
from tfdist.gradients.reduction import Reduced, divided, sum_over_replicas, weighted
from tfdist.gradients.skip_rules import non_finite
from tfdist.log import logger


class GradientCompression:
    """Reduces the gradients of one optimizer.

    Args:
        optimizer: a Keras optimizer that is not inside another one.
        compressor: how.

    Attributes:
        state: each replica's, and what files hold of it.
        traffic: of one replica in an optimizer step, by the stage's number; known once it is traced.
    """

    def __init__(self, optimizer: Any, compressor: Compressor) -> None:
        compressor.check(optimizer)
        self._optimizer: Any = weakref.ref(optimizer)
        self.compressor = compressor
        self.state = CompressionState(optimizer, compressor, self._whole)
        self.traffic: dict[int, Traffic] = {}
        self._stages = compressor.stages()
        self._strategy: Any = None
        self._held: dict[str, np.ndarray] | None = None
        #: What `_gathered` calls, and of which states.
        self._gathering: tuple[list[str], Callable[[], Any]] | None = None

    @property
    def position(self) -> str:
        """How far it is, the same on all workers."""
        return str(int(self._optimizer().iterations))

    # In each replica.

    def reduce(self, gradients: list[Any], variables: list[Any], *, share: tf.Tensor | None) -> Reduced:
        """Sum gradients over all replicas; not in a function or conditional in the replica.

        Args:
            gradients: tensors, IndexedSlices and Nones; equal shapes and equal Nones on every replica.
            variables: that they are of.
            share: this replica's weight; None for 1.
        """
        context = tf.distribute.get_replica_context()
        build_if_needed(self._optimizer(), variables)
        present = [
            (weighted(_shaped(g, v), share), v) for g, v in zip(gradients, variables, strict=True) if g is not None
        ]
        indices = [variable_index(self._optimizer(), variable) for _, variable in present]
        reduced = context.merge_call(
            lambda strategy, own: self.reduce_in_all(strategy, own, indices), args=([own for own, _ in present],)
        )
        rest = iter(reduced.gradients)
        return Reduced([None if g is None else next(rest) for g in gradients], reduced.state)

    def commit(self, state: dict[str, tf.Tensor]) -> None:
        """Keep what a step has left to be said."""
        for name, value in state.items():
            self.state.variables[name].assign(value)

    # In cross-replica context.

    def means(self, strategy: Any, take: Callable[[], tuple[list[Any], tf.Tensor]], indices: list[int]) -> Reduced:
        """Reduce what micro-batches have added up; see `Reduction`."""

        def own() -> list[Any]:
            sums, weight = take()
            (total,) = sum_over_replicas([weight])
            return [divided(one, total) for one in sums]

        return self.reduce_in_all(strategy, strategy.extended.call_for_each_replica(own), indices)

    def reduce_in_all(self, strategy: Any, own: list[Any], indices: list[int]) -> Reduced:
        """Sum what the replicas have.

        Args:
            strategy: whose replicas have gradients.
            own: weighted gradients, each replica's part.
            indices: the variables' numbers in the optimizer.
        """
        self._strategy = strategy
        local = [strategy.experimental_local_results(gradient)[0] for gradient in own]
        taken = {
            index: place
            for place, (index, gradient) in enumerate(zip(indices, local, strict=True))
            if self._is_taken(gradient)
        }
        shapes = {index: tuple(local[place].shape) for index, place in taken.items()}
        self.state.make(strategy, {**self._of_all, **shapes})

        def stage(number: int) -> Reduced:
            def in_replica(own: list[Any]) -> Reduced:
                return self._reduce(number, own, taken)

            return strategy.extended.call_for_each_replica(tf.autograph.experimental.do_not_convert(in_replica), (own,))

        if len(self._stages) == 1:
            return stage(0)
        return tf.switch_case(self._number(strategy), [lambda n=n: stage(n) for n in range(len(self._stages))])

    def _number(self, strategy: Any) -> tf.Tensor:
        """The stage that is in use, an int32 scalar."""
        if self.is_measured:
            (choice, *_) = strategy.experimental_local_results(self.state.variables[f"{Automatic.ALL}_choice"])
            return tf.cast(choice.read_value(), tf.int32)
        step = tf.cast(tf.convert_to_tensor(self._optimizer().iterations), tf.int64)
        firsts = tf.constant([one.first_step for one in self._stages[1:]], tf.int64)
        return tf.reduce_sum(tf.cast(step >= firsts, tf.int32))

    @property
    def is_measured(self) -> bool:
        """Whether the stage is chosen by `choose`."""
        return isinstance(self.compressor, Automatic)

    @property
    def _of_all(self) -> dict[int, tuple[int, ...]]:
        """Numbers and shapes of what has states beside variables."""
        return {Automatic.ALL: ()} if self.is_measured else {}

    def _is_taken(self, gradient: Any) -> bool:
        is_dense = not isinstance(gradient, tf.IndexedSlices) and gradient.dtype.is_floating
        return is_dense and gradient.shape.is_fully_defined() and self.compressor.takes(tuple(gradient.shape))

    def _reduce_without_states(self, number: int, own: list[Any], taken: dict[int, int]) -> Reduced:
        places = list(taken.values())
        values = [tf.cast(own[place], tf.float32) for place in places]
        exchange = Exchange([gradient for place, gradient in enumerate(own) if place not in set(places)])
        states: list[State] = [self.state.of(index) for index in taken]
        sums, _ = self._stages[number].reduce(values, states, exchange) if values else ([], [])
        found, rest = dict(zip(places, sums, strict=True)), iter(exchange.companions())
        self._note(number, exchange.traffic, own)
        result = [tf.cast(found[i], g.dtype) if i in found else next(rest) for i, g in enumerate(own)]
        kept = {f"{i}_{name}": one for i, state in zip(taken, states, strict=True) for name, one in state.items()}
        return Reduced(result, kept)

    def _reduce(self, number: int, own: list[Any], taken: dict[int, int]) -> Reduced:
        if not self._stages[number].keeps_states:
            return self._reduce_without_states(number, own, taken)
        places = list(taken.values())
        gradients = [own[place] for place in places]
        is_finite = tf.logical_not(non_finite(gradients)) if gradients else tf.constant(True)
        scale = loss_scale_of(self._optimizer()).value
        values = [_scaled(tf.where(is_finite, tf.cast(g, tf.float32), 0.0), scale, tf.divide) for g in gradients]
        states: list[State] = [self.state.of(index) for index in taken]
        others = [gradient for place, gradient in enumerate(own) if place not in set(places)]
        exchange = Exchange([1.0 - tf.cast(is_finite, tf.float32), *others])
        # Where there are none, compressors needn't know what to do.
        sums, after = self._stages[number].reduce(values, states, exchange) if values else ([], [])
        not_finite, *other_sums = exchange.companions()
        self._note(number, exchange.traffic, own)
        sums = [_scaled(tf.where(not_finite > 0, np.nan, total), scale, tf.multiply) for total in sums]
        typed = [tf.cast(total, g.dtype) for total, g in zip(sums, gradients, strict=True)]
        found = dict(zip(places, typed, strict=True))
        rest = iter(other_sums)
        result = [found[place] if place in found else next(rest) for place in range(len(own))]
        # Equal on all replicas, since sums are; a step that an optimizer with a loss scale leaves out is not learnt of.
        is_kept = tf.logical_not(non_finite(result)) if result else tf.constant(True)
        return Reduced(result, self._next(list(taken), states, after, is_kept))

    def _next(
        self, indices: list[int], states: list[Any], after: list[Any], is_kept: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        return {
            f"{index}_{name}": tf.where(is_kept, new[name], old[name])
            for index, old, new in zip(indices, states, after, strict=True)
            for name in old
        }

    def _note(self, number: int, traffic: Traffic, own: list[Any]) -> None:
        if number in self.traffic:
            return
        self.traffic[number] = traffic
        if number == len(self._stages) - 1 and not self.is_measured:
            replicas = tf.distribute.get_replica_context().num_replicas_in_sync
            whole = Traffic(summed=sum(map(bytes_of, own))).sent(replicas)
            logger.info(
                "%s: each of %d replicas sends %.3f MB a step in place of %.3f MB (1/%.1f)",
                self.compressor,
                replicas,
                traffic.sent(replicas) / 1e6,
                whole / 1e6,
                whole / max(1, traffic.sent(replicas)),
            )

    # Eagerly, on every worker.

    @property
    def is_decided(self) -> bool:
        """Whether the stage in use is to stay; true where there is nothing to choose."""
        name = f"{Automatic.ALL}_decided"
        return not self.is_measured or bool(self._value(name) if name in self.state.variables else 0)

    @property
    def in_use(self) -> int:
        """The number of the stage that training is in, or comes to; eagerly, after a first step."""
        return int(self._value(f"{Automatic.ALL}_choice")) if self.is_measured else len(self._stages) - 1

    def choose(self, number: int, *, decided: bool) -> None:
        """Use a stage from the next step on, once there was a first step."""
        for name, value in {"choice": float(number), "decided": float(decided)}.items():
            for copy in self._strategy.experimental_local_results(self.state.variables[f"{Automatic.ALL}_{name}"]):
                copy.assign(value)

    def _value(self, name: str) -> float:
        return float(self._strategy.experimental_local_results(self.state.variables[name])[0].numpy())

    def _whole(self, *, together: bool) -> dict[str, np.ndarray] | None:
        if self._held is not None:
            return self._held
        if getattr(self._strategy, "num_workers", 1) == 1:
            return self._gathered()
        if together and self._strategy.save_together("checkpoint", {"compression": self.position}):
            return self._gathered()
        return None

    def hold(self) -> None:
        """Add up what replicas owe, for a file that the chief is about to write; call it on every worker."""
        self._held = self._gathered()

    def release(self) -> None:
        """The file is written."""
        self._held = None

    def _gathered(self) -> dict[str, np.ndarray]:
        names = sorted(self.state.variables)
        added = [name for name in names if not self.state.is_shared(name)]

        def in_replica() -> list[tf.Tensor]:
            own = {name: self.state.variables[name].read_value() for name in names}
            sums = dict(zip(added, sum_over_replicas([own[name] for name in added]) if added else [], strict=True))
            return [sums.get(name, own[name]) for name in names]

        strategy = self._strategy
        if self._gathering is None or self._gathering[0] != names:
            with strategy.scope():
                function = tf.function(lambda: strategy.extended.call_for_each_replica(in_replica), autograph=False)
                self._gathering = names, function.get_concrete_function()
        values = self._gathering[1]()
        return {
            name: np.asarray(strategy.experimental_local_results(value)[0])
            for name, value in zip(names, values, strict=True)
        }


def compress(optimizer: Any, compressor: Compressor) -> GradientCompression:
    """Let an optimizer's gradients be compressed, and files hold what replicas owe."""
    compression = GradientCompression(optimizer, compressor)
    attach_compression(optimizer, compression, CompressionCheckpoint(compression.state))
    return compression


def _shaped(gradient: Any, variable: Any) -> Any:
    """A gradient whose shape is known: that of a kernel of a layer on sequences, say, has sizes that are None."""
    return gradient if isinstance(gradient, tf.IndexedSlices) else tf.ensure_shape(gradient, variable.shape)


def _scaled(value: tf.Tensor, scale: Any, operation: Callable[[Any, Any], tf.Tensor]) -> tf.Tensor:
    return value if scale is None else operation(value, tf.cast(scale, value.dtype))
