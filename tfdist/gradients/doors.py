"""The ways to ask for gradient accumulation: on the strategy, on a Keras optimizer, or for one optimizer alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tfdist import _compat
from tfdist._compat.keras_optimizers import accumulation_of, attach_accumulation, gradient_accumulation_steps, is_inside
from tfdist.gradients.accumulation import GradientAccumulation
from tfdist.gradients.accumulation_options import AccumulationOptions, Steps
from tfdist.gradients.checkpoint_state import CheckpointState


def accumulate(optimizer: Any, gradient_accumulation_steps: Steps | AccumulationOptions) -> Any:
    """Let one Keras optimizer accumulate gradients, under any strategy or none.

    Under a tfdist strategy it is simpler to give `gradient_accumulation_steps` to the strategy, or to the optimizer
    itself. This is for models without a strategy, under `tf.distribute.OneDeviceStrategy`, and for custom loops.

    Args:
        optimizer: any Keras optimizer; changed in place.
        gradient_accumulation_steps: micro-batches to an optimizer step, a function of optimizer steps that gives
            them, or `AccumulationOptions`.

    Returns:
        The optimizer.

    Raises:
        ValueError: the optimizer accumulates already, is inside another one, or asks for another number itself.

    Example:

        optimizer = tfdist.gradients.accumulate(keras.optimizers.Adam(), 4)
        model.compile(optimizer, "mse")
    """
    options = AccumulationOptions.of(gradient_accumulation_steps)
    if accumulation_of(optimizer) is not None or is_inside(optimizer):
        raise ValueError(
            "Expected: an optimizer that does not accumulate yet, the outermost one. "
            f"Received: {type(optimizer).__name__} {optimizer.name!r}, which is inside another optimizer or has been "
            "given to accumulate() before. Make a new one, or accumulate the outer one."
        )
    if options.splits > 1:
        raise ValueError(
            "Batches are cut by a strategy, which knows the train step. Expected: AccumulationOptions with splits=1 in "
            f"accumulate(). Received: splits={options.splits}. Give the options to "
            "tfdist.OneDeviceStrategy(gradient_accumulation_steps=...), or make smaller batches."
        )
    _compat.install()
    combined(options, optimizer)
    attach(optimizer, lambda: combined(options, optimizer))
    return optimizer


def attach(optimizer: Any, settings: Callable[[], AccumulationOptions]) -> GradientAccumulation:
    """Let an optimizer accumulate as `settings` says, now and whenever it is asked again."""
    accumulation = GradientAccumulation(optimizer, settings)
    attach_accumulation(optimizer, accumulation, CheckpointState(accumulation.state))
    return accumulation


def flush(optimizer: Any) -> None:
    """An optimizer step with the micro-batches that wait for one, if any.

    `fit` does this at the end of each epoch; a custom loop or a `train_on_batch` loop calls it itself, on every worker
    and outside of `strategy.run`.

    Args:
        optimizer: one that accumulates; others are left alone.
    """
    accumulation = accumulation_of(optimizer)
    if accumulation is not None:
        accumulation.flush()


def combined(options: AccumulationOptions, optimizer: Any) -> AccumulationOptions:
    """Options of a strategy, or of `accumulate`, with what the Keras optimizer asks for itself.

    Raises:
        ValueError: both ask, for different numbers.
    """
    steps = gradient_accumulation_steps(optimizer)
    if steps is None:
        return options
    if options.steps not in (1, steps):
        raise ValueError(
            "Gradient accumulation is asked for twice, with different numbers. Expected: one of the two. Received: "
            f"gradient_accumulation_steps={options.steps!r} on the strategy (or in accumulate()) and "
            f"gradient_accumulation_steps={steps} on the optimizer {optimizer.name!r}. Remove it from the optimizer to "
            "accumulate as the strategy says, or from the strategy to accumulate as the optimizer says."
        )
    return dataclasses.replace(options, steps=steps)
