"""A fit that drops stale gradients, watched by `StalenessHistogram` and Keras' TensorBoard.

python -m tests.callbacks.programs.staleness FOLDER

Keeps in FOLDER/results.pickle what the callback and the history have; events are in FOLDER/board.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import keras
import tensorflow as tf

import tfdist
from tests.helpers.slow import Slow
from tests.strategies.programs.updates import SECONDS
from tfdist.updates import BoundedStaleness, Synchronous

STEPS, EPOCHS = 40, 3
POLICIES = {"bounded": BoundedStaleness(1, "drop"), "synchronous": Synchronous(backup_workers=1), "none": None}


def main(folder: Path) -> None:
    results = {}
    data = tf.data.Dataset.from_tensors((tf.ones([4, 1]), tf.zeros([4, 1]))).repeat(STEPS)
    with tfdist.cluster.local(workers=2, ps=1) as cluster:
        for name, policy in POLICIES.items():
            strategy = tfdist.ParameterServerStrategy(cluster, update=policy)
            with strategy.scope():
                model = keras.Sequential([keras.Input((1,)), Slow(SECONDS), keras.layers.Dense(1)])
                model.compile("sgd", "mse")
            histogram = tfdist.callbacks.StalenessHistogram(log_dir=folder / name)
            board = keras.callbacks.TensorBoard(folder / name)
            # Keras' own is told first, which must not matter.
            history = model.fit(
                data, epochs=EPOCHS, verbose=0, callbacks=[board, histogram], validation_data=data.take(5)
            ).history
            model.fit(data, verbose=0, callbacks=[again := tfdist.callbacks.StalenessHistogram(verbose=0)])
            results[name] = {
                "counts": histogram.counts,
                "dropped": histogram.dropped,
                "history": history,
                "iterations": int(model.optimizer.iterations),
                "again": (again.counts, again.dropped),
            }
    (folder / "results.pickle").write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
