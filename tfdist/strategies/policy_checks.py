"""What a policy of `tfdist.updates` can't be combined with, refused with a remedy before the first step."""

from __future__ import annotations

from typing import Any

from tfdist._compat.keras_optimizers import leaves_of
from tfdist.gradients import AccumulationOptions
from tfdist.updates import LocalPolicy, Policy


def check_policy(policy: Any, workers: int, max_in_flight: int | None) -> None:
    """Refuse what isn't a policy of the cluster, on all its tasks.

    Args:
        policy: As the user said.
        workers: How many there are.
        max_in_flight: As the user said.

    Raises:
        TypeError: it's none.
        ValueError: it needs more workers; or some would never have anything to do, where all compute gradients of the
            same step at the same time.
    """
    if not isinstance(policy, Policy):
        raise TypeError(f"update is one of tfdist.updates, such as Async(), or None. Received: update={policy!r}.")
    needed = policy.gradients_per_step(workers)
    if needed is not None and max_in_flight is not None and max_in_flight < workers:
        raise ValueError(
            f"With {policy} all workers compute at the same time. Expected: max_in_flight of at least {workers}, the "
            f"number of workers, or None. Received: max_in_flight={max_in_flight}. Leave it out."
        )


def refuse_steps_without_round(policy: Policy, steps_per_execution: int) -> None:
    """A step needs the parameters that the step before it has made, and those need the other workers.

    Raises:
        ValueError: an execution has several steps.
    """
    if steps_per_execution > 1:
        raise ValueError(
            f"With {policy} a worker can't begin its next step before the gradients of other workers have come. "
            f"Expected: steps_per_execution=1. Received: steps_per_execution={steps_per_execution} in model.compile(). "
            "Leave it out; to exchange gradients less often, give the strategy gradient_accumulation_steps=K."
        )


def refuse_accumulated_compensation(policy: Policy, options: AccumulationOptions) -> None:
    """Micro-batches are computed with parameters of several versions, so there are none to compare with those of now.

    Raises:
        ValueError: the policy compares, and there are several.
    """
    if policy.needs_values and not options.is_trivial:
        raise ValueError(
            f"{type(policy).__name__} compares the parameters of a gradient with those of now, and micro-batches are "
            f"computed with several. Expected: no gradient accumulation. Received: update={policy} and "
            f"gradient_accumulation_steps={options.steps}. Use StalenessAware() or BoundedStaleness(...) with it."
        )


def refuse_averages_and_accumulation(policy: LocalPolicy, model: Any, options: AccumulationOptions) -> None:
    """What makes no sense where each worker trains parameters of its own."""
    name = type(policy).__name__
    if model.optimizer is None:
        raise ValueError(
            f"Under {name} workers train with the model's optimizer. Expected: one in model.compile(). Received: "
            "optimizer=None."
        )
    if options.fixed_steps > 1:
        raise ValueError(
            f"Under {name} workers send changes of several steps anyway. Expected: gradient_accumulation_steps=1. "
            f"Received: gradient_accumulation_steps={options.steps}. Leave it out."
        )
    for optimizer in leaves_of(model.optimizer):
        if optimizer.use_ema:
            raise ValueError(
                f"Under {name} the optimizer works on parameters of a worker, not on those that are saved, so it can't "
                f"average these. Received: use_ema=True in optimizer {optimizer.name!r}. Leave it out, or use another "
                "policy."
            )


def refuse_one_batch(policy: LocalPolicy) -> None:
    """A worker trains on more than that."""
    raise ValueError(
        f"train_on_batch trains on one batch; under {type(policy).__name__} workers train on several by themselves. "
        "Use fit."
    )
