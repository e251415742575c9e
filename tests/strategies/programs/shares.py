"""Data that is a worker's own share already, of unequal length on the two workers."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.setups import Setup, compiled, features, labels, weights
from tfdist.data.rows import mark_share

#: Rows of each step on worker 0 and worker 1; worker 1 runs out first.
STEPS = (((0, 5), (5, 11)), ((11, 19), (19, 22)), ((22, 25), (25, 25)), ((25, 26), (26, 26)))


def global_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """What one device is given."""
    x, y = features(26), labels(26)
    return [(x[begin:end], y[begin:end]) for (begin, _), (_, end) in STEPS]


def share(worker: int) -> tf.data.Dataset:
    """One worker's batches; the steps without rows are not there at all."""
    x, y = features(26), labels(26)
    parts = [step[worker] for step in STEPS if step[worker][0] < step[worker][1]]

    def generate() -> object:
        yield from ((x[begin:end], y[begin:end]) for begin, end in parts)

    signature = (tf.TensorSpec((None, 6), tf.float32), tf.TensorSpec((None,), tf.int64))
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def reference() -> np.ndarray:
    """One device's weights."""
    model = Setup(None).classifier(lambda: keras.optimizers.SGD(0.1, momentum=0.9))
    for _ in range(2):
        for x, y in global_batches():
            model.train_on_batch(x, y)
    return weights(model)


def main() -> None:
    """Train on marked shares and on datasets from a function."""
    strategy = tfdist.MultiWorkerMirroredStrategy()
    expected = reference()
    mine = share(strategy.worker_index)
    for data in (mark_share(mine), strategy.distribute_datasets_from_function(lambda _: mine)):
        model = Setup(strategy).classifier(lambda: keras.optimizers.SGD(0.1, momentum=0.9))
        history = model.fit(data, epochs=2, verbose=0)
        np.testing.assert_allclose(weights(model), expected, atol=1e-6)
        assert len(history.history["loss"]) == 2
    with strategy.scope():
        model = compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)]))
    rows = model.predict(mark_share(mine.map(lambda x, y: x)), verbose=0)
    assert rows.shape == (26, 3), rows.shape


if __name__ == "__main__":
    main()
