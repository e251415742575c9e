"""What users do, each as a case: a function of a Setup that returns numbers which must equal one device's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.helpers.setups import Setup

#: Float32 rounding over a few dozen steps of another summation order.
TOLERANCE = 1e-5

GROUPS = ("inputs", "fit_options", "optimizers", "losses", "layers", "training_code", "accumulation")


@dataclass(frozen=True)
class Case:
    """One cell's row of the matrix."""

    name: str
    group: str
    run: Callable[[Setup], dict[str, Any]]
    tolerance: float
    why: str
    two_replicas_will_do: bool = False


_cases: dict[str, Case] = {}

#: Set-ups of one replica, where gradients accumulate and nothing else differs from one device.
ACCUMULATING = ("one_device_strategy", "no_strategy")
#: Set-ups of three replicas, and what they leave out: how steps are counted, say, doesn't depend on their number.
THREE_REPLICAS = ("mirrored3", "workers3", "mpi3")
#: Loops of one's own are written for TensorFlow's coordinator there; workers add up a fixed number of micro-batches.
NOT_ON_PARAMETER_SERVERS = (
    "custom_loop",
    "custom_loop_scaled_by_hand",
    "accumulate_custom_loop",
    "accumulate_carry",
    "accumulate_growing",
    "accumulate_skip",
    "accumulate_train_on_batch",
)
#: Where replicas of a worker of a parameter-server job have to do with each other.
ON_REPLICAS_OF_A_WORKER = (
    "arrays_last_batch_of_1",
    "arrays_last_batch_odd",
    "ragged",
    "adam",
    "loss_scale_optimizer",
    "inf_on_one_replica",
    "multi_optimizer",
    "embedding_adam",
    "reduction_mean_with_sample_weight",
    "masked_sequences",
    "metrics",
    "logs_of_every_batch",
    "batch_normalization_synchronized",
    "convolutional",
    "own_losses_and_two_optimizers",
    "predict_any_number_of_rows",
    "accumulate_adam",
    "accumulate_4_in_executions_of_3",
    "accumulate_loss_scale_optimizer",
    "accumulate_masked",
)


#: Where splitting operations has to do with what users set; the other cases run on meshes with TFDIST_MATRIX=all.
ON_A_MESH = (
    *("sample_weight", "steps_per_execution_3", "one_batch_methods", "learning_rate_schedule", "global_clipnorm"),
    *("ema_overwrite", "inf_on_one_replica", "mixed_bfloat16", "embedding_clipnorm", "metrics"),
)
#: What DTensor has no layout for, or no rule; the strategy refuses it.
NOT_ON_A_MESH = ("dictionary_with_strings", "ragged", "ragged_one_batch", "custom_loss_of_some_rows")


def runs_in(case: Case, setup: str) -> bool:
    """Whether a case says something new in a set-up."""
    if setup.startswith("hybrid"):
        # Accumulation is Keras' own there, which tests/strategies/test_hybrid_parallel.py compares with Keras.
        return case.group != "accumulation" and case.name not in NOT_ON_A_MESH
    if case.two_replicas_will_do and setup in THREE_REPLICAS:
        return False
    if setup == "parameter_server" and case.name in NOT_ON_PARAMETER_SERVERS:
        return False
    if setup == "parameter_server2":
        return case.name in ON_REPLICAS_OF_A_WORKER
    if case.group == "accumulation":
        return setup != "workers3"  # two workers and three replicas accumulate
    return setup not in ACCUMULATING


def case(tolerance: float = TOLERANCE, why: str = "", *, two_replicas_will_do: bool = False) -> Callable[[Any], Any]:
    """Register a case; a looser tolerance needs its reason."""

    def register(run: Callable[[Setup], dict[str, Any]]) -> Callable[[Setup], dict[str, Any]]:
        assert tolerance <= TOLERANCE or why, "say why"
        group = run.__module__.rsplit(".", 1)[-1]
        _cases[run.__name__] = Case(run.__name__, group, run, tolerance, why, two_replicas_will_do)
        return run

    return register


def variants(make: Callable[..., Any], names_and_args: dict[str, tuple[Any, ...]], **options: Any) -> None:
    """Register `make(*args)` under each name."""
    for name, args in names_and_args.items():
        run = make(*args)
        run.__name__, run.__module__ = name, make.__module__
        case(**options)(run)


def all_cases() -> dict[str, Case]:
    """All cases by name, in the order of their groups."""
    for group in GROUPS:
        importlib.import_module(f"tests.helpers.cases.{group}")
    return _cases
