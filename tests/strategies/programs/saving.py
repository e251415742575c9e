"""Two workers save in every way at once; run as `python -m tests.strategies.programs.saving DIRECTORY`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfdist
from tests.helpers.setups import Setup, batches, compiled, features, weights


def callbacks(folder: Path) -> list[Any]:
    """Every callback that writes files, all workers with the same paths."""
    return [
        keras.callbacks.ModelCheckpoint(str(folder / "best.keras"), monitor="loss", save_best_only=True),
        keras.callbacks.ModelCheckpoint(str(folder / "epoch-{epoch}.weights.h5"), save_weights_only=True),
        keras.callbacks.ModelCheckpoint(str(folder / "step.weights.h5"), save_freq=2, save_weights_only=True),
        keras.callbacks.TensorBoard(str(folder / "board")),
        keras.callbacks.CSVLogger(str(folder / "log.csv")),
        keras.callbacks.BackupAndRestore(str(folder / "backup"), delete_checkpoint=False),
    ]


def main(folder: Path) -> None:
    """Train, save, load and go on."""
    strategy = tfdist.MultiWorkerMirroredStrategy()
    model = Setup(strategy).classifier(lambda: keras.optimizers.Adam(0.01))
    model.fit(batches(53, 10), epochs=2, verbose=0, callbacks=callbacks(folder))
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    model.export(folder / "exported", verbose=False)
    keras.saving.save_model(model, folder / "function.keras")
    if strategy.is_chief:
        model.save(folder / "chief_only.keras")
    expected = weights(model)
    np.save(folder / f"predictions-{strategy.worker_index}.npy", model.predict(features(53), verbose=0))

    outside = keras.models.load_model(folder / "model.keras")
    np.testing.assert_array_equal(weights(outside), expected)
    with strategy.scope():
        inside = keras.models.load_model(folder / "model.keras")
        fresh = compiled(keras.models.clone_model(model))
    np.testing.assert_array_equal(weights(inside), expected)
    fresh.load_weights(folder / "model.weights.h5")
    np.testing.assert_array_equal(weights(fresh), expected)

    model.fit(batches(53, 10), epochs=1, verbose=0)
    with strategy.scope():
        # Saves make an optimizer, which must not ask the other workers for anything.
        inside.fit(batches(53, 10), epochs=1, verbose=0, callbacks=callbacks(folder / "in_scope"))
        inside.save(folder / "in_scope" / "model.keras")
    np.testing.assert_array_equal(weights(inside), weights(model))
    assert type(model.optimizer) is keras.optimizers.Adam
    np.save(folder / f"continued-{strategy.worker_index}.npy", weights(model))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
