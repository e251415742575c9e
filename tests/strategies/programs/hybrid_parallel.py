"""`python -m tests.strategies.programs.hybrid_parallel OUTPUT.json MODEL-SPLIT-OPTIMIZER ...`: against one device.

Writes for each cell the largest difference from plain Keras over weights, History, evaluate and predict, by what it is
of, and how far training has moved the weights.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfdist
from tests.helpers.matrix import difference_of

BATCH, WIDTH, CLASSES = 8, 8, 4
#: Of the MLP, a last batch of 6, which a batch axis of 4 doesn't divide; others compile for one number of rows.
ROWS = {"mlp": 22, "cnn": 16, "transformer": 16, "embedding": 16}

LAYOUTS = {**tfdist.layouts.transformer(), r".*norm.*/(gamma|beta)": ("model",)}
#: How a model is split over four devices.
SPLITS: dict[str, dict[str, Any]] = {
    "data": {"mesh": {"batch": 4}},
    "tensor": {"mesh": {"model": 4}, "layout_map": LAYOUTS},
    "data_tensor": {"mesh": {"batch": 2, "model": 2}, "layout_map": LAYOUTS},
    "fsdp": {"mesh": {"batch": 4}, "zero_stage": 3},
    "zero1": {"mesh": {"batch": 4}, "zero_stage": 1},
    "vocabulary": {
        "mesh": {"batch": 2, "model": 2},
        "layout_map": tfdist.layouts.embedding(by="vocabulary"),
        "zero_stage": 3,
    },
    "fsdp_tensor": {"mesh": {"model": 2, "batch": 2}, "layout_map": LAYOUTS, "zero_stage": 3},
}
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    # Gradients of attention's key biases are zero but for rounding, of which a small epsilon would make whole steps.
    "adam": lambda: keras.optimizers.Adam(0.01, epsilon=1e-4),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-4),
    # Keras' own, whose accumulators are laid out as slots.
    "accumulating": lambda: keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2, use_ema=True),
    "adafactor": lambda: keras.optimizers.Adafactor(0.01, epsilon_1=1e-6),
}
#: What doesn't depend on the optimizer is compared after these.
EVALUATED = ("sgd", "adafactor")


def mlp() -> keras.Model:
    inputs = keras.Input((WIDTH,))
    hidden = keras.layers.Dense(16, activation="relu", name="up")(inputs)
    hidden = keras.layers.Dense(WIDTH, name="down")(keras.layers.Dropout(0.25, seed=3)(hidden))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(hidden + inputs))


def cnn() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(8, 3, use_bias=False, name="convolution")(inputs)
    hidden = keras.layers.BatchNormalization(momentum=0.8, name="norm")(hidden)
    hidden = keras.layers.MaxPooling2D()(keras.layers.ReLU()(hidden))
    hidden = keras.layers.Flatten()(hidden)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(hidden))


def transformer() -> keras.Model:
    inputs = keras.Input((6, WIDTH))
    hidden = keras.layers.LayerNormalization(name="first_norm")(inputs)
    hidden = inputs + keras.layers.MultiHeadAttention(4, 2, dropout=0.1, seed=4)(hidden, hidden, use_causal_mask=True)
    wide = keras.layers.Dense(32, activation="gelu", name="up")(keras.layers.LayerNormalization(name="norm")(hidden))
    hidden = hidden + keras.layers.Dense(WIDTH, name="down")(wide)
    hidden = keras.layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(hidden))


def embedding() -> keras.Model:
    """Ids repeat within a row and across rows."""
    inputs = keras.Input((5,), dtype="int32")
    hidden = keras.layers.Flatten()(keras.layers.Embedding(12, WIDTH, name="table")(inputs))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(hidden))


MODELS = {"mlp": mlp, "cnn": cnn, "transformer": transformer, "embedding": embedding}


def data(model: keras.Model, rows: int) -> tuple[np.ndarray, np.ndarray]:
    random, shape = np.random.RandomState(0), (rows, *model.input_shape[1:])
    x = random.randint(0, 12, shape) if model.inputs[0].dtype == "int32" else random.randn(*shape)
    return x.astype(model.inputs[0].dtype), random.randint(0, CLASSES, rows)


def trained(name: str, optimizer: str, strategy: Any) -> dict[str, np.ndarray]:
    """What training gives, under a strategy or on one device."""
    keras.utils.set_random_seed(1)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model = MODELS[name]()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(OPTIMIZERS[optimizer](), loss, metrics=["accuracy"])
    x, y = data(model, ROWS[name])
    first = flat(model.get_weights())
    history = model.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0)
    found = {
        "first weights": first,
        "weights": flat(model.get_weights()),
        "slots": flat([np.asarray(variable) for variable in model.optimizer.variables]),
        **{f"history {key}": np.asarray(values) for key, values in history.history.items()},
    }
    if optimizer in EVALUATED:
        found["evaluate"] = np.asarray(model.evaluate(x, y, batch_size=BATCH, verbose=0))
        found["predict"] = model.predict(x, batch_size=BATCH, verbose=0)
    return found


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays])


def main(output: str, *cells: str) -> None:
    tfdist.layouts.logical_cpus(4)
    found = {}
    for cell in cells:
        name, split, optimizer = cell.split("-")
        expected = trained(name, optimizer, None)
        received = trained(name, optimizer, tfdist.HybridParallelStrategy(**SPLITS[split]))
        found[cell] = {key: difference_of(key, received[key], expected[key]) for key in expected}
        found[cell]["moved"] = float(np.abs(expected["weights"] - expected["first weights"]).max())
        keras.backend.clear_session()
        Path(output).write_text(json.dumps(found))
        print(cell, found[cell], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
