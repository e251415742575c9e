"""Trains by micro-batches, saving after each; killed in the middle of an accumulation, and started again.

`python -m tests.gradients.programs.resume SETUP FOLDER KIND [--killed]`; KIND is "keras" or "tensorflow", the format.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.helpers.setups import Setup, compiled, labels, weights

STEPS, MICRO_BATCHES, KILLED_AFTER = 4, 12, 6


def main(name: str, folder: Path, kind: str, *, killed: bool) -> None:
    """Go on from what is in the folder, if anything."""
    setup = Setup.named(name)
    setup.strategy.gradient_accumulation_steps = STEPS
    with setup.scope():
        ids = keras.Input((3,), dtype="int32")
        hidden = keras.layers.Flatten()(keras.layers.Embedding(20, 4)(ids))
        model = compiled(keras.Model(ids, keras.layers.Dense(3)(hidden)), lambda: keras.optimizers.Adam(0.02))
        model.optimizer.build(model.trainable_variables)
    files = Files(setup, model, folder, kind)
    x = np.random.RandomState(2).randint(0, 20, (MICRO_BATCHES, 10, 3))
    y = labels(MICRO_BATCHES * 10).reshape(MICRO_BATCHES, 10)
    start = files.load()
    for done in range(start, MICRO_BATCHES):
        model.train_on_batch(x[done], y[done])
        files.save(done + 1)
        if killed and done + 1 == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
    assert start == (KILLED_AFTER if folder.name == "killed" else 0)
    assert int(model.optimizer.iterations) == MICRO_BATCHES // STEPS
    np.save(folder / f"weights-{getattr(setup.strategy, 'worker_index', 0)}.npy", weights(model))


class Files:
    """Checkpoints in one of the two formats; every worker saves, the chief's is read by all."""

    def __init__(self, setup: Setup, model: keras.Model, folder: Path, kind: str):
        self._model, self._folder, self._kind = model, folder, kind
        self._index = setup.strategy.worker_index
        self._checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)

    def load(self) -> int:
        """Micro-batches that were done."""
        names: list[Any] = sorted(self._folder.glob("state-*"))
        if not names:
            return 0
        last = str(names[-1]).split(".")[0]
        if self._kind == "keras":
            self._model.load_weights(f"{last}.weights.h5")
        else:
            self._checkpoint.read(last).assert_existing_objects_matched()
        return int(last.rsplit("-", 1)[1])

    def save(self, done: int) -> None:
        """Keep where training is."""
        path = self._folder / f"state-{done:02}"
        if self._kind == "keras":
            self._model.save_weights(f"{path}.weights.h5")
        else:
            # As TensorFlow wants it: all workers save, the others to where nobody reads.
            self._checkpoint.write(str(path if self._index == 0 else self._folder / f"aside-{self._index}"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], killed="--killed" in sys.argv)
