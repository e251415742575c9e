"""`python -m tests.strategies.programs.hybrid_parallel_layers OUTPUT.json [LAYER ...]`: a training step of each.

Writes the largest difference from one device over loss and weights, or what the strategy said when it refused, or the
type of any other error. The mesh is 2 x 2; each weight is split over "model" by its last dimension, rows over "batch".
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfdist
from tests.helpers.keras_layers import EXAMPLES, ROWS, Example, model_around
from tests.helpers.matrix import difference_of


def by_last_dimension(shape: Sequence[int]) -> tuple[str | None, ...]:
    splits = bool(shape) and shape[-1] % 2 == 0
    return (*([None] * (len(shape) - 1)), "model") if splits else (None,) * len(shape)


def step(example: Example, strategy: Any) -> dict[str, np.ndarray]:
    """Loss and weights after one training step."""
    keras.utils.set_random_seed(1)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model = model_around(example)
        model.compile(keras.optimizers.SGD(0.1), "mse")
    targets = np.random.RandomState(1).randn(ROWS, 4).astype("float32")
    loss = model.train_on_batch(example.arrays(), targets)
    return {"loss": np.asarray(loss), **{str(place): value for place, value in enumerate(model.get_weights())}}


def outcome(example: Example) -> dict[str, Any]:
    expected = step(example, None)
    try:
        received = step(example, tfdist.HybridParallelStrategy({"batch": 2, "model": 2}, {".*": by_last_dimension}))
    except ValueError as error:
        return {"refused": str(error)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"difference": max(difference_of(name, received[name], expected[name]) for name in expected)}


def main(output: str, *names: str) -> None:
    tfdist.layouts.logical_cpus(4)
    found = {}
    for name in names or EXAMPLES:
        found[name] = outcome(EXAMPLES[name])
        Path(output).write_text(json.dumps(found))
        print(name, found[name], flush=True)
        keras.backend.clear_session()


if __name__ == "__main__":
    main(*sys.argv[1:])
