"""What a step of `fit` costs beside the gradients: `python -m tests.strategies.programs.collectives_a_step FOLDER`.

Each task keeps FOLDER/RANK.json: by case, the collectives of one more step, the traces, and the epochs' logs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.collective_count import collectives, count_all

BATCH_SIZE, STEPS = 10, 7


class Reader(keras.callbacks.Callback):
    """Keeps what it is shown of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, float]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(dict(logs))


class Counting(keras.Model):
    """Counts its traces, and may return a log that is no metric."""

    traces = 0
    own_log = False

    def train_step(self, data: Any) -> Any:
        type(self).traces += 1
        logs = super().train_step(data)
        return {**logs, "own": tf.reduce_sum(data[0])} if self.own_log else logs


def build(strategy: Any, *, own_log: bool = False) -> keras.Model:
    keras.utils.set_random_seed(5)
    with strategy.scope():
        inputs = keras.Input((6,))
        model = Counting(inputs, keras.layers.Dense(3)(keras.layers.Dense(8, activation="tanh")(inputs)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
    model.own_log = own_log
    Counting.traces = 0
    return model


def fit(model: keras.Model, steps: int, **options: Any) -> tuple[dict[str, Any], int]:
    """History, and how many collectives it took."""
    random = np.random.RandomState(0)
    x, y = random.randn(BATCH_SIZE * steps, 6).astype("float32"), random.randint(0, 3, BATCH_SIZE * steps)
    before = collectives()
    history = model.fit(x, y, batch_size=BATCH_SIZE, shuffle=False, **options)
    return history.history, collectives() - before


def measure(strategy: Any, own_log: bool = False, **options: Any) -> dict[str, Any]:
    """Of fits of STEPS steps and of one more, the first of which traces."""
    model = build(strategy, own_log=own_log)
    first, _ = fit(model, STEPS, **options)
    _, few = fit(model, STEPS, **options)
    second, more = fit(model, STEPS + 1, **options)
    return {"a step": more - few, "traces": Counting.traces, "history": [first, second]}


def main(folder: Path) -> None:
    strategy = tfdist.MultiWorkerMirroredStrategy()
    count_all()
    reader = Reader()
    found = {
        "read": measure(strategy, verbose=0, callbacks=[reader]),
        "not read": measure(strategy, verbose=0),
        "a line an epoch": measure(strategy, verbose=2),
        "read by one": measure(strategy, verbose=0, callbacks=[Reader()] if strategy.is_chief else []),
        "own log": measure(strategy, own_log=True, verbose=0),
    }
    found["seen"] = reader.seen
    model = build(strategy)
    fit(model, STEPS, verbose=0)
    again = Reader()
    fit(model, STEPS, verbose=0, callbacks=[again])
    found["seen after a fit that nobody read"] = again.seen
    (folder / f"{strategy.worker_index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
