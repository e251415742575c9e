"""`python -m tests.strategies.programs.large_vocabulary OUTPUT.json CASE ...`: logits that are split over devices.

A character transformer; for each case the largest difference from plain Keras on one device, by what it is of.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfdist
from tests.helpers.matrix import difference_of
from tests.strategies.programs.hybrid_parallel import OPTIMIZERS, flat

BATCH, TIME, WIDTH = 8, 16, 16
#: As many classes as a tokenizer of 64k words has; the text has fewer than 256.
PADDED = 65536
BOTH: dict[str, Any] = {"mesh": {"batch": 2, "model": 2}, "layout_map": tfdist.layouts.transformer()}

CASES: dict[str, dict[str, Any]] = {
    "padded": {"strategy": BOTH, "classes": PADDED, "rows": 8},
    # The last batch has 7 rows, which are computed on both parts of the batch axis.
    "probabilities": {"strategy": {**BOTH, "zero_stage": 3}, "rows": 15, "probabilities": True, "weighted": True},
    "ignored": {"strategy": {**BOTH, "mesh": {"model": 4}}, "ignore_class": 32, "weighted": True},
}


def text() -> np.ndarray:
    """Tiny Shakespeare where it is, or the license of this project, as bytes."""
    shakespeare = Path(os.environ.get("TFDIST_DATA_DIR", "")) / "tinyshakespeare.txt"
    file = shakespeare if shakespeare.is_file() else Path(__file__).parents[3] / "LICENSE"
    return np.frombuffer(file.read_bytes(), np.uint8).astype("int32")


def build(classes: int, probabilities: bool) -> keras.Model:
    inputs = keras.Input((TIME,), dtype="int32")
    hidden = keras.layers.Embedding(classes, WIDTH, name="table")(inputs)
    normal = keras.layers.LayerNormalization(name="norm")(hidden)
    hidden = hidden + keras.layers.MultiHeadAttention(4, 4, name="attention")(normal, normal, use_causal_mask=True)
    wide = keras.layers.Dense(4 * WIDTH, activation="gelu", name="up")(hidden)
    hidden = hidden + keras.layers.Dense(WIDTH, name="down")(wide)
    activation = "softmax" if probabilities else None
    return keras.Model(inputs, keras.layers.Dense(classes, activation=activation, name="head")(hidden))


def trained(
    strategy: Any,
    classes: int = 256,
    rows: int = 16,
    probabilities: bool = False,
    weighted: bool = False,
    ignore_class: int | None = None,
) -> dict[str, np.ndarray]:
    """What an epoch gives, under a strategy or on one device."""
    keras.utils.set_random_seed(1)
    like = {"from_logits": not probabilities, "ignore_class": ignore_class}
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model = build(classes, probabilities)
        top = keras.metrics.SparseTopKCategoricalAccuracy(5)
        metrics = ["accuracy", top, keras.metrics.SparseCategoricalCrossentropy(**like)]
        loss = keras.losses.SparseCategoricalCrossentropy(**like)
        model.compile(OPTIMIZERS["adam"](), loss, metrics=metrics, weighted_metrics=["accuracy"])
    characters = text()[: rows * TIME + 1]
    x, y = characters[:-1].reshape(rows, TIME), characters[1:].reshape(rows, TIME)
    weights = np.random.RandomState(0).rand(rows, TIME).astype("float32") if weighted else None
    history = model.fit(x, y, batch_size=BATCH, sample_weight=weights, shuffle=False, verbose=0)
    return {
        "weights": flat(model.get_weights()),
        **{f"history {key}": np.asarray(values) for key, values in history.history.items()},
        "evaluate": np.asarray(model.evaluate(x, y, batch_size=BATCH, sample_weight=weights, verbose=0)),
        "predict": model.predict(x[:BATCH], verbose=0),
    }


def main(output: str, *cases: str) -> None:
    tfdist.layouts.logical_cpus(4)
    found = {}
    for name in cases:
        options = dict(CASES[name])
        strategy = tfdist.HybridParallelStrategy(**options.pop("strategy"))
        expected, received = trained(None, **options), trained(strategy, **options)
        found[name] = {key: difference_of(key, received[key], expected[key]) for key in expected}
        keras.backend.clear_session()
        print(name, found[name], flush=True)
    Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
