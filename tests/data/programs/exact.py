"""Two workers train on TFRecords under every sharding rule and shuffle, and compare themselves with one device.

`python -m tests.data.programs.exact FOLDER [--all]` on each worker; without `--all` every rule and shuffle with uneven
files, and one of each with the others. The one device is given, step by step, the batches of all
workers together, read without a strategy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.setups import Setup, features, labels, weights
from tfdist.data import ShardOptions, Tensor, read_tfrecords

WORKERS, ROWS, EPOCHS = 2, 61, 2
FEATURES = {"x": Tensor([6]), "y": Tensor([], "int64")}
# Even files are shared as files; of uneven ones, and of a single one, workers read runs of records.
SPLITS = {"even": (15, 31, 46, 61), "uneven": (3, 5, 61), "single": (61,)}
#: The same sums in another order, in float32.
TOLERANCE = 1e-6


def write(folder: Path, kind: str) -> str:
    """Files of a data set, as the first worker to come finds them missing."""
    pattern = folder / kind / "rows-*.tfrecord"
    x, y = features(ROWS), labels(ROWS)
    begin = 0
    for number, end in enumerate(SPLITS[kind]):
        with tf.io.TFRecordWriter(str(pattern).replace("*", str(number))) as out:
            for row in range(begin, end):
                encoded = {"x": FEATURES["x"].encode("x", x[row]), "y": FEATURES["y"].encode("y", y[row])}
                parts = {key: part for one in encoded.values() for key, part in one.items()}
                out.write(tf.train.Example(features=tf.train.Features(feature=parts)).SerializeToString())
        begin = end
    return str(pattern)


def shares(pattern: str, **options: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches of all workers together, for all epochs."""
    parts = [read_tfrecords(pattern, FEATURES, shard=ShardOptions(WORKERS, w), **options) for w in range(WORKERS)]
    for _ in range(EPOCHS):
        for batches in zip(*parts, strict=True):
            x = np.concatenate([batch["x"].numpy() for batch, _ in batches])
            yield x, np.concatenate([label.numpy() for _, label in batches])


def optimizer() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(0.05)


#: Shuffle and sharding.
WAYS = [(False, "auto"), (False, "batches"), ("local", "auto"), ("local", "batches"), ("global", "auto")]


def cases(*, all_of_them: bool) -> list[tuple[str, Any, str]]:
    """Kind of files, shuffle and sharding."""
    found = [(kind, *way) for kind in SPLITS for way in WAYS]
    return found if all_of_them else [one for one in found if one[0] == "uneven" or one[1:] == WAYS[0]]


def main(folder: Path, *, all_of_them: bool) -> None:
    strategy = tfdist.MultiWorkerMirroredStrategy()
    for kind, shuffle, sharding in cases(all_of_them=all_of_them):
        pattern = str(folder / kind / "rows-*.tfrecord")
        options = {"batch_size": 8, "label": "y", "shuffle": shuffle, "sharding": sharding, "seed": 5}
        with strategy.scope():
            data = read_tfrecords(pattern, FEATURES, **options)
        model = Setup(strategy).classifier(optimizer)
        history = model.fit(data.map(lambda x, y: (x["x"], y)), epochs=EPOCHS, verbose=0)
        reference = Setup(None).classifier(optimizer)
        steps = [reference.train_on_batch(x, y) for x, y in shares(pattern, **options)]
        message = f"{kind}, shuffle={shuffle}, sharding={sharding}"
        assert len(steps) == EPOCHS * -(-ROWS // 8), message
        assert len(history.history["loss"]) == EPOCHS
        np.testing.assert_allclose(weights(model), weights(reference), atol=TOLERANCE, err_msg=message)
        print("exact:", message, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), all_of_them="--all" in sys.argv)
