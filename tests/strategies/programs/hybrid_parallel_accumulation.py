"""`python -m tests.strategies.programs.hybrid_parallel_accumulation OUTPUT.json CASE ...`: micro-batches on a mesh.

Writes for each case the largest difference from tfdist's accumulation on one device over weights, slots and History,
and how far training has moved the weights; for `refused-...` the message.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.matrix import difference_of
from tests.strategies.programs.hybrid_parallel import (
    BATCH,
    LAYOUTS,
    OPTIMIZERS,
    data,
    embedding,
    flat,
    mlp,
    transformer,
)
from tfdist._compat.keras_optimizers import accumulation_of
from tfdist._compat.tensorflow_dtensor_variables import MeshVariable

MESH: dict[str, Any] = {"mesh": {"batch": 2, "model": 2}, "layout_map": LAYOUTS}
#: Batches of 8, 8, 8, 8 and 6: with K=2 or 3 the last optimizer step of an epoch has other rows than the others.
ROWS, EPOCHS = 38, 2
Options = tfdist.gradients.AccumulationOptions


def clipped() -> keras.Optimizer:
    return keras.optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-4, global_clipnorm=0.5, use_ema=True)


def scaled() -> keras.Optimizer:
    inner = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10), momentum=0.9)
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0, dynamic_growth_steps=3)


def above(gradients: list[tf.Tensor]) -> tf.Tensor:
    """Some of the updates."""
    return tf.linalg.global_norm(gradients) > 1.2


#: Model, optimizer, options, and what compile and fit are given.
CASES: dict[str, tuple[Callable[[], keras.Model], Any, Any, dict[str, Any]]] = {
    "adam": (transformer, OPTIMIZERS["adam"], 2, {}),
    "clipped": (mlp, clipped, 3, {"steps_per_execution": 2}),
    "scaled": (mlp, scaled, 2, {"sample_weights": True}),
    "skipped": (mlp, OPTIMIZERS["sgd"], Options(2, leftover="carry", skip_rules=(above,)), {}),
    "growing": (mlp, OPTIMIZERS["adam"], lambda done: 1 + done // 3, {}),
    "embedding": (embedding, OPTIMIZERS["momentum"], 2, {}),
}


def trained(case: str, strategy: Any) -> tuple[keras.Model, dict[str, np.ndarray]]:
    build, optimizer, _, options = CASES[case]
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = build()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        steps = options.get("steps_per_execution", 1)
        model.compile(optimizer(), loss, metrics=["accuracy"], steps_per_execution=steps)
    x, y = data(model, ROWS)
    weights = np.random.RandomState(2).rand(ROWS).astype("float32") if "sample_weights" in options else None
    first = flat(model.get_weights())
    history = model.fit(
        x, y, sample_weight=weights, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0, validation_data=(x, y)
    )
    found = {
        "first": first,
        "weights": flat(model.get_weights()),
        "slots": flat([np.asarray(variable) for variable in model.optimizer.variables]),
        **{f"history {key}": np.asarray(values) for key, values in history.history.items()},
    }
    return model, found


def compared(case: str) -> dict[str, Any]:
    options = CASES[case][2]
    stage = 1 if case == "adam" else 3  # in which slots are laid out unlike their variables
    strategy = tfdist.HybridParallelStrategy(**MESH, zero_stage=stage, gradient_accumulation_steps=options)
    model, received = trained(case, strategy)
    _, expected = trained(case, tfdist.OneDeviceStrategy("CPU:0", gradient_accumulation_steps=options))
    found = {key: difference_of(key, received[key], expected[key]) for key in expected}
    moved = float(np.abs(expected["weights"] - expected["first"]).max())
    return found | {"moved": moved, "laid out": layouts_of(model)}


def layouts_of(model: keras.Model) -> list[list[str]]:
    """Of each sum of gradients, and of a slot of its variable where there is one."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    kept = {id(one.value.slot_of): str(one.value.layout) for one in optimizer.variables if is_slot(one.value)}
    sums = [slot.variables[0] for slot in accumulation_of(model.optimizer).state.slots.values()]
    return [[str(one.layout), kept.get(id(one.slot_of), "")] for one in sums]


def is_slot(value: Any) -> bool:
    return isinstance(value, MeshVariable) and value.slot_of is not None


def refused(case: str) -> str:
    """The message of what can't be done."""
    try:
        if case == "refused-splits":
            tfdist.HybridParallelStrategy(**MESH, gradient_accumulation_steps=Options(2, splits=2))
        elif case == "refused-twice":
            with tfdist.HybridParallelStrategy(**MESH, gradient_accumulation_steps=2).scope():
                mlp().compile(keras.optimizers.SGD(gradient_accumulation_steps=2), "mse")
        else:
            CASES[case] = (embedding, OPTIMIZERS["adam"], 2, {})
            trained(case, tfdist.HybridParallelStrategy(**MESH, gradient_accumulation_steps=2))
    except ValueError as error:
        return str(error)
    return ""


def main(output: str, *cases: str) -> None:
    tfdist.layouts.logical_cpus(4)
    found = {}
    for case in cases:
        found[case] = refused(case) if case.startswith("refused") else compared(case)
        print(case, found[case], flush=True)
    Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
