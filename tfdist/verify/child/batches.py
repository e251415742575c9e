"""The batches of a `fit` with accumulated gradients: what one device gets as one batch, and the workers as several.

    --accumulate=K          one device trains on the script's batches, the workers on K slices of each
    the script accumulates  the workers train as it says, one device on K of its batches put together, at once

An optimizer step then has the same rows in both runs. What one device can't put together is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import tfdist.gradients
from tfdist._compat.keras_optimizers import gradient_accumulation_steps, parts_of
from tfdist.data.rows import slice_rows
from tfdist.gradients import AccumulationOptions

#: Above the rows of any batch: all that a window of batches holds becomes one.
_ALL_ROWS = 1 << 40

#: The arguments of a call of `fit`, by name; changed in place.
Arguments = dict[str, Any]


class Batches:
    """What a run does with the batches of `fit`.

    Args:
        strategy: of the run.
        slices: into how many each batch is cut.
        join: whether batches that the script accumulates are put together, and nothing is accumulated.
    """

    def __init__(self, strategy: tf.distribute.Strategy, *, slices: int = 1, join: bool = False) -> None:
        self._strategy, self._slices, self._join = strategy, slices, join

    def watch(self) -> None:
        """Where nothing is to be accumulated: let `tfdist.gradients.accumulate` only say what it was asked for."""
        if self._join:
            tfdist.gradients.accumulate = _note_steps

    def accumulates(self, model: Any) -> bool:
        """Whether an optimizer step may take several batches here."""
        return not self._join and model.optimizer is not None and self._strategy.accumulates(model.optimizer)

    def steps(self, model: Any) -> int:
        """Micro-batches to an optimizer step, as the script asks."""
        asked = [getattr(self._strategy, "gradient_accumulation_steps", 1)]
        asked += [] if model.optimizer is None else [gradient_accumulation_steps(model.optimizer)]
        return max(steps_of(steps) for steps in asked if steps is not None)

    def arrange(self, model: Any, arguments: Arguments) -> None:
        """Cut or join the batches of a `fit`.

        Args:
            model: a compiled model.
            arguments: the call's, by name.
        """
        if self._slices > 1:
            model.steps_per_execution = _executions(model, self._slices, multiply=True)
            _arrange(arguments, self._slices, cut_dataset, _divided)
        elif self._join and model.optimizer is not None and (steps := self.steps(model)) > 1:
            model.steps_per_execution = _executions(model, steps, multiply=False)
            for optimizer in (model.optimizer, *parts_of(model.optimizer)):
                optimizer.gradient_accumulation_steps = None
            _arrange(arguments, steps, join_dataset, _multiplied)


def steps_of(asked: Any) -> int:
    """A fixed number of micro-batches.

    Raises:
        ValueError: the number changes, or not all rows reach an optimizer step in their epoch.
    """
    options = AccumulationOptions.of(asked)
    if callable(options.steps) or options.leftover != "flush" or options.skip_rules:
        raise ValueError(
            "tfdist verify puts K micro-batches together for one device. Expected: an integer "
            f"gradient_accumulation_steps, leftover='flush' and no skip rules. Received: {options}."
        )
    return int(options.steps)


def _note_steps(optimizer: Any, gradient_accumulation_steps: Any) -> Any:
    optimizer.gradient_accumulation_steps = steps_of(gradient_accumulation_steps)
    return optimizer


def _executions(model: Any, steps: int, *, multiply: bool) -> int:
    """`steps_per_execution` with which executions end at the same optimizer steps in both runs.

    Raises:
        ValueError: there is none.
    """
    executed = int(model.steps_per_execution)
    if executed == 1:
        return 1
    if multiply:
        return executed * steps
    if executed % steps and steps % executed:
        raise ValueError(
            f"Executions end between optimizer steps. Expected: steps_per_execution that divides the {steps} micro-"
            f"batches of a step, or is divided by them. Received: steps_per_execution={executed}."
        )
    return max(1, executed // steps)


def _arrange(
    arguments: Arguments,
    count: int,
    datasets: Callable[[tf.data.Dataset, int], tf.data.Dataset],
    sizes: Callable[[str, int, int], int],
) -> None:
    x = arguments.get("x")
    if isinstance(x, tf.data.Dataset):
        arguments["x"] = datasets(x, count)
        if arguments.get("steps_per_epoch") is not None:
            # An epoch has as many micro-batches more as a batch has slices, so the other way round than rows.
            other = _multiplied if sizes is _divided else _divided
            arguments["steps_per_epoch"] = other("steps_per_epoch", arguments["steps_per_epoch"], count)
    elif _are_arrays(x):
        arguments["batch_size"] = sizes("batch_size", arguments.get("batch_size") or 32, count)
    else:
        raise ValueError(
            "tfdist verify cuts and joins batches of arrays and of tf.data datasets. Received: "
            f"x={type(x).__name__}, with {count} micro-batches to an optimizer step. Make it a tf.data.Dataset."
        )


def _are_arrays(x: Any) -> bool:
    leaves = tf.nest.flatten(x)
    return bool(leaves) and all(isinstance(leaf, np.ndarray) or tf.is_tensor(leaf) for leaf in leaves)


def _multiplied(name: str, size: int, count: int) -> int:
    return size * count


def _divided(name: str, size: int, count: int) -> int:
    if size % count:
        raise ValueError(
            f"Micro-batches must fill a batch, and a batch an epoch, without a rest. Expected: {name} that can be "
            f"divided by {count}. Received: {name}={size}. Choose another number, or make the data a tf.data.Dataset."
        )
    return size // count


def cut_dataset(dataset: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Each batch as `count` slices of its rows, some of them empty where it has fewer rows."""
    is_tuple = isinstance(dataset.element_spec, tuple)

    def cut(*components: Any) -> tf.data.Dataset:
        element = components if is_tuple else components[0]
        return tf.data.Dataset.range(count).map(lambda index: slice_rows(element, index, count))

    return _with_cardinality(dataset.flat_map(cut), dataset, lambda batches: batches * count)


def join_dataset(dataset: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """The rows of each `count` batches as one batch; those of fewer at the end."""
    is_tuple = isinstance(dataset.element_spec, tuple)

    def join(*windows: Any) -> tf.data.Dataset:
        window = tf.data.Dataset.zip(windows if is_tuple else windows[0])
        return window.unbatch().batch(_ALL_ROWS)

    return _with_cardinality(dataset.window(count).flat_map(join), dataset, lambda batches: -(-batches // count))


def _with_cardinality(
    dataset: tf.data.Dataset, before: tf.data.Dataset, batches: Callable[[int], int]
) -> tf.data.Dataset:
    """Keras asks for the number of batches, which `flat_map` does not know."""
    known = int(before.cardinality())
    if known == tf.data.INFINITE_CARDINALITY:
        return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return dataset.apply(tf.data.experimental.assert_cardinality(batches(known))) if known >= 0 else dataset
