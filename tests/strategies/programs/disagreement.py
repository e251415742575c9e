"""Two workers that do not run the same: `python -m tests.strategies.programs.disagreement WHAT`."""

from __future__ import annotations

import sys

import keras
import numpy as np

import tfdist
from tests.helpers.setups import Setup, compiled, features, labels
from tfdist.errors import WorkersDisagreeError


class LoadsOtherWeights(keras.callbacks.Callback):
    """Restores what only this worker's disk has."""

    def on_train_begin(self, logs: object = None) -> None:
        self.model.set_weights([weight + 1 for weight in self.model.get_weights()])


def main(what: str) -> None:
    """Differ in `what`; print the error, or train."""
    strategy = tfdist.MultiWorkerMirroredStrategy(peer_timeout_seconds=20 if what == "layers" else 900)
    other = strategy.worker_index == 1
    setup, rows, width = Setup(strategy), 53, 6
    if what == "weights":
        model = setup.classifier()
        if other:
            model.layers[0].kernel.assign_add(np.full((6, 8), 1e-7, "float32"))
    elif what == "layers":
        with setup.scope():
            layers = [keras.layers.Dense(8) for _ in range(2 if other else 1)]
            model = compiled(keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3)]))
    elif what == "optimizer":
        model = setup.classifier("adam" if other else "sgd")
    else:
        model = setup.classifier()
    if what == "gradient accumulation":
        strategy.gradient_accumulation_steps = 4 if other else 2
    if what == "number of batches":
        rows = 43 if other else 53
    if what == "model":
        model.layers[0].trainable = not other
        compiled(model)
    if what == "input" and other:
        width = 5
    batch_size = 9 if what == "batch size" and other else 10
    callbacks = [LoadsOtherWeights()] if what == "weights a callback loaded" and other else []
    try:
        if what == "call" and other:
            model.predict(features(rows), verbose=0)
        model.fit(features(rows)[:, :width], labels(rows), batch_size=batch_size, verbose=0, callbacks=callbacks)
    except WorkersDisagreeError as error:
        print("REFUSED", error)


if __name__ == "__main__":
    main(sys.argv[1])
