"""What is trained under LocalSGDStrategy and, model by model, in plain Keras; shared by both programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

BATCH_SIZE, EPOCHS = 8, 2
#: Five batches of 8 rows and one of a single row, of which all replicas but the last have none.
ROWS = 41


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to train.

    Args:
        optimizer: makes the inner optimizer.
        options: of `AveragingOptions`.
        normalized: whether the model has a BatchNormalization layer.
        steps_per_execution: as in `compile`.
        epochs: passes over the data.
        saved_after: batches of each epoch after which all workers save, in the middle of a period.
        evaluated: whether there is validation, and `predict` after training.
    """

    optimizer: Callable[[], Any]
    options: dict[str, Any]
    normalized: bool = False
    steps_per_execution: int = 1
    epochs: int = EPOCHS
    saved_after: int | None = None
    evaluated: bool = False


def sgd() -> Any:
    return keras.optimizers.SGD(0.1)


def momentum() -> Any:
    return keras.optimizers.SGD(0.05, momentum=0.9)


def adam() -> Any:
    return keras.optimizers.Adam(0.02)


def adam_with_average() -> Any:
    return keras.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.8)


def slow_momentum() -> Any:
    return keras.optimizers.SGD(0.9, momentum=0.5)


def nesterov() -> Any:
    # Keras rounds its momentum to float32, which this one survives.
    return keras.optimizers.SGD(0.7, momentum=0.75, nesterov=True)


CASES = {
    "sgd": Case(sgd, {"sync_every_steps": 4}, evaluated=True),
    "batch normalization": Case(sgd, {"sync_every_steps": 4}, normalized=True),
    "momentum kept": Case(momentum, {"sync_every_steps": 4}),
    "momentum averaged": Case(momentum, {"sync_every_steps": 4, "inner_state": "average"}),
    "adam kept": Case(adam, {"sync_every_steps": 4}),
    "adam averaged": Case(adam, {"sync_every_steps": 4, "inner_state": "average"}),
    "moving average of weights": Case(adam_with_average, {"sync_every_steps": 4}),
    "steps per execution": Case(adam, {"sync_every_steps": 2}, steps_per_execution=3),
    "slow momentum": Case(sgd, {"sync_every_steps": 2, "outer_optimizer": slow_momentum}),
    "diloco": Case(adam, {"sync_every_steps": 2, "outer_optimizer": nesterov}, evaluated=True),
    "warm-up": Case(adam, {"sync_every_steps": 3, "warmup_steps": 8, "outer_optimizer": nesterov}),
    "epoch": Case(adam, {"sync_every_steps": "epoch"}),
    "fragments": Case(adam, {"sync_every_steps": 4, "fragments": 2, "outer_optimizer": nesterov}),
    "plain fragments": Case(adam, {"sync_every_steps": 3, "fragments": 2}),
    "overlap": Case(
        adam,
        {"sync_every_steps": 4, "fragments": 2, "overlap_steps": 1, "outer_optimizer": nesterov},
        evaluated=True,
    ),
    "plain overlap": Case(sgd, {"sync_every_steps": 3, "overlap_steps": 2}, normalized=True, saved_after=4),
    "overlap of executions": Case(
        momentum,
        {"sync_every_steps": 4, "fragments": 2, "overlap_steps": 1, "inner_state": "average"},
        steps_per_execution=3,
        epochs=3,
    ),
    "levels": Case(adam, {"levels": {"host": 1, "cluster": 3}}),
    "saved": Case(adam, {"sync_every_steps": 3, "outer_optimizer": nesterov}, saved_after=2),
}


def build(case: Case) -> keras.Model:
    """Six features, eight hidden units, three classes; always the same initial weights."""
    keras.utils.set_random_seed(7)
    layers = [keras.Input((6,)), keras.layers.Dense(8, activation="tanh")]
    layers += [keras.layers.BatchNormalization(momentum=0.8)] if case.normalized else []
    return keras.Sequential([*layers, keras.layers.Dense(3)])


def loss() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def features() -> np.ndarray:
    return np.random.RandomState(0).randn(ROWS, 6)


def labels() -> np.ndarray:
    return np.random.RandomState(1).randint(0, 3, ROWS)


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])
