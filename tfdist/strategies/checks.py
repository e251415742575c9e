"""Mixed-up use, refused with a remedy before the first step."""

from __future__ import annotations

from typing import Any

from tfdist._compat import hooks
from tfdist._compat.keras_optimizers import accumulation_of, parts_of, strategy_of
from tfdist.gradients import AccumulationOptions
from tfdist.log import logger


def refuse_mixed_up_use(strategy: Any, model: Any, data: hooks.DataSummary | None) -> None:
    """Check a compiled model and its data.

    Raises:
        ValueError: what can't work, what was received, what to do.
    """
    refuse_foreign_optimizer(strategy, model)
    strategy.options_of(model.optimizer)  # raises where strategy and optimizer contradict each other
    if data is not None and data.training:
        refuse_small("number of rows", data.num_rows, strategy)
        refuse_small("batch_size", data.batch_size, strategy)


def refuse_xla(model: Any, what: str) -> None:
    """Refuse a model that asks for XLA.

    Args:
        model: compiled.
        what: XLA cannot compile; "" if it can all.

    Raises:
        ValueError: it asks for it.
    """
    if what and model.jit_compile:
        raise ValueError(
            f"XLA cannot compile {what}. Expected: jit_compile=False or 'auto'. Received: "
            f"jit_compile={model.jit_compile!r} in model.compile() of model {model.name!r}. Leave jit_compile out; "
            "'auto', the default, switches XLA off under a strategy."
        )


def refuse_foreign_optimizer(strategy: Any, model: Any) -> None:
    """The optimizer's variables must be where the model's are."""
    if model.optimizer is None:
        return
    for optimizer in (model.optimizer, *parts_of(model.optimizer)):
        if strategy_of(optimizer) is not strategy:
            raise ValueError(
                f"The optimizer was made outside of the scope of the model's {type(strategy).__name__}, so its "
                f"variables are not on the strategy's devices. Received: optimizer={type(optimizer).__name__} "
                f"{optimizer.name!r}. Make it under `with strategy.scope():`, or pass its name to compile()."
            )


def refuse_small(what: str, size: int | None, strategy: Any) -> None:
    """A full batch must have a row for every replica; `size` is None where it is not known."""
    replicas = strategy.num_replicas_in_sync
    if size is not None and size < replicas:
        raise ValueError(
            f"Every replica needs a row of each full batch. Expected: a global {what} of at least {replicas}, the "
            f"number of replicas. Received: {what}={size}. Use a larger batch or fewer devices."
        )


def refuse_few_steps(steps: int | None, workers: int) -> None:
    """Each worker must have a batch in an epoch; `steps` is None where it is not known."""
    if steps is not None and steps < workers:
        raise ValueError(
            f"Each worker trains on batches of its own. Expected: at least {workers} batches an epoch, the number of "
            f"workers. Received: {steps}. Use smaller batches, more data or fewer workers."
        )


def refuse_jit_and_accumulation(model: Any, options: AccumulationOptions) -> None:
    """What doesn't work with variables of other machines."""
    refuse_xla(model, "steps whose variables are on parameter servers")
    if accumulation_of(model.optimizer) is not None:
        raise ValueError(
            "Under ParameterServerStrategy gradients are accumulated by the workers. Expected: "
            "ParameterServerStrategy(gradient_accumulation_steps=K). Received: an optimizer that was given to "
            "tfdist.gradients.accumulate(). Give the number to the strategy."
        )
    if callable(options.steps) or options.skip_rules or options.leftover == "carry" or options.splits > 1:
        raise ValueError(
            "Workers add up a fixed number of micro-batches. Expected: gradient_accumulation_steps=K with "
            f"leftover='flush' or 'drop', splits=1 and no skip_rules. Received: {options}."
        )
    if model.run_eagerly:
        logger.warning("run_eagerly has no effect under ParameterServerStrategy: steps run on workers, as graphs")
