"""`python -m tests.strategies.programs.hybrid_parallel_checkpoints OUTPUT.json STEP ...`: goes on elsewhere.

STEP is `save:STRATEGY:FOLDER`, training that breaks off in the middle of its second epoch, or `load:STRATEGY:FOLDER`,
which goes on from a copy of the folder. Writes for each load
    "loaded": the largest difference, behind the load, from what there was at the checkpoint; weights and optimizer
    "weights alone": the same, of weights that `tfdist.checkpoint.load_weights` has read
    "ended": the largest difference at the end of training from one device that was never stopped.
DTensor's collectives and those of MirroredStrategy can't be in one process, so steps are of one kind or the other. With
TF_CONFIG it is a job of several processes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfdist
from tests.helpers.matrix import difference_of
from tests.strategies.programs.hybrid_parallel import BATCH, CLASSES, LAYOUTS, OPTIMIZERS, WIDTH, flat

ROWS, EPOCHS = 28, 3
#: Of the second epoch; there is a checkpoint behind the second step. The last batch of an epoch has four rows.
STOP_AT = 2

MESHES: dict[str, dict[str, Any]] = {
    "mesh": {"mesh": {"batch": 2, "model": 2}, "layout_map": LAYOUTS, "zero_stage": 3},
    "zero1": {"mesh": {"batch": 4}, "zero_stage": 1},
    "tensor": {"mesh": {"model": 4}, "layout_map": LAYOUTS},
}


def strategy_named(name: str) -> Any:
    if name == "one_device":
        return None
    if name == "mirrored":
        return tfdist.MirroredStrategy(["CPU:0", "CPU:1"])
    if name == "workers":
        return tfdist.MultiWorkerMirroredStrategy()
    return tfdist.HybridParallelStrategy(**MESHES[name])


class Stop(Exception):
    """Training breaks off."""


class AtStop(keras.callbacks.Callback):
    """Calls a function before the step where training breaks off."""

    def __init__(self, function: Callable[[keras.Model], None]) -> None:
        super().__init__()
        self._epoch, self._function = 0, function

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == (1, STOP_AT):
            self._function(self.model)


def make(name: str) -> keras.Model:
    """Without dropout, whose masks are of each replica."""
    keras.utils.set_random_seed(1)
    strategy = strategy_named(name)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        inputs = keras.Input((WIDTH,))
        hidden = keras.layers.Dense(16, activation="gelu", name="up")(keras.layers.LayerNormalization()(inputs))
        hidden = keras.layers.Dense(WIDTH, name="down")(hidden)
        model = keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(hidden + inputs))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(OPTIMIZERS["adam"](), loss, metrics=["accuracy"])
    return model


def fit(model: keras.Model, callbacks: list[Any]) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    x, y = random.randn(ROWS, WIDTH).astype("float32"), random.randint(0, CLASSES, ROWS)
    history = model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks)
    return {"state": state(model), **{f"history {key}": np.asarray(one) for key, one in history.history.items()}}


def state(model: keras.Model) -> np.ndarray:
    return flat([np.asarray(one) for one in [*model.weights, *model.optimizer.variables]])


@functools.cache
def never_stopped() -> dict[str, np.ndarray]:
    return fit(make("one_device"), [])


def save(name: str, folder: Path) -> None:
    def stop(model: keras.Model) -> None:
        kept = {"state": state(model), "weights": flat(model.get_weights())}
        if tfdist.cluster.resolve().is_chief:
            np.savez(folder.with_suffix(".npz"), **kept)
        raise Stop

    with contextlib.suppress(Stop):
        fit(make(name), [tfdist.callbacks.Checkpoint(folder, every_steps=2), AtStop(stop)])


def load(name: str, folder: Path) -> dict[str, float]:
    is_job = tfdist.cluster.resolve().num_workers > 1
    copy = folder if is_job else shutil.copytree(folder, folder.with_suffix(f".{name}"))
    kept, loaded, alone = np.load(folder.with_suffix(".npz")), [], make(name)
    tfdist.checkpoint.load_weights(alone, copy)
    model = make(name)
    look = AtStop(lambda model: loaded.append(state(model)))
    found = fit(model, [tfdist.callbacks.Checkpoint(copy, every_steps=100), look])
    return {
        "loaded": float(np.abs(loaded[0] - kept["state"]).max()),
        "weights alone": float(np.abs(flat(alone.get_weights()) - kept["weights"]).max()),
        "ended": max(difference_of(key, found[key], one) for key, one in never_stopped().items()),
        "moved": float(np.abs(found["state"] - kept["state"]).max()),
    }


def main(output: str, *steps: str) -> None:
    cluster, found = tfdist.cluster.resolve(), {}
    tfdist.layouts.logical_cpus(4 // cluster.num_workers)
    for step in steps:
        kind, name, folder = step.split(":")
        if kind == "save":
            save(name, Path(folder))
            continue
        found[f"{Path(folder).name}-{name}"] = load(name, Path(folder))
        print(found, flush=True)
    if cluster.is_chief:
        Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
