"""Trains on two workers, each with its own view of the directory.

`python -m tests.checkpoint.programs.worker_faults CHIEFS OTHERS EPOCHS [fails]`
"""

from __future__ import annotations

import sys

import keras

import tfdist
from tests.helpers.setups import batches, compiled
from tfdist.errors import CheckpointError, WorkersDisagreeError

UNITS = 400


def main(chiefs: str, others: str, epochs: int, fails: bool) -> None:
    strategy = tfdist.MultiWorkerMirroredStrategy(peer_timeout_seconds=60)
    keras.utils.set_random_seed(7)
    with strategy.scope():
        layers = [keras.Input((6,)), keras.layers.Dense(UNITS), keras.layers.Dense(UNITS), keras.layers.Dense(3)]
        model = compiled(keras.Sequential(layers))
    checkpoint = tfdist.callbacks.Checkpoint(chiefs if strategy.is_chief else others, keep=10)
    try:
        history = model.fit(batches(32, 8), epochs=epochs, verbose=0, callbacks=[checkpoint])
    except (CheckpointError, WorkersDisagreeError) as error:
        assert fails and "No space left" in str(error), error
    else:
        assert not fails and history.epoch == list(range(epochs)), history.epoch


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:] == ["fails"])
