"""Text of varying length: lines of similar length share batches, and what is still padded is masked.

    python examples/tfrecords_text.py
    tfdist launch --workers=2 examples/tfrecords_text.py

Learns the next byte of each of 2,000 made-up lines, or with --text=FILE of the lines of a file of your own.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from common import write_on_chief

import tfdist

FOLDER = os.path.join(tempfile.gettempdir(), "tfdist-examples")
GROUPED = 20  # batches whose lines are sorted by length
FEATURES = {"bytes": tfdist.data.VariableLength("int64")}  # padded with 0, which no text has


def lines_of_text(file: Path | None) -> list[bytes]:
    if file is not None:
        return [line for line in file.read_bytes().splitlines() if len(line) > 1]
    chance = random.Random(0)
    words = [["the", "a", "my"], ["red", "old", "small"], ["fox", "house", "river"], ["sees", "has", "finds"]]
    return [" ".join(chance.choice(words[i % 4]) for i in range(chance.randint(2, 25))).encode() for _ in range(2000)]


def write(lines: list[bytes], pattern: str) -> None:
    with tfdist.data.TFRecordWriter(pattern, FEATURES, num_shards=4, num_records=len(lines)) as writer:
        for line in lines:
            writer.write(bytes=np.frombuffer(line, np.uint8))


def read(pattern: str, batch_size: int, group_by_length: int) -> tf.data.Dataset:
    lines = tfdist.data.read_tfrecords(
        pattern, batch_size=batch_size, shuffle=True, group_by_length=group_by_length, drop_remainder=True
    )
    return lines.map(_with_next_byte)


def _with_next_byte(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    x, y = batch["bytes"][:, :-1], batch["bytes"][:, 1:]
    return tf.where(y != 0, x, 0), y  # behind the last byte comes nothing, so it is masked too


def padding(pattern: str, batch_size: int, group_by_length: int) -> float:
    """Part of this worker's batches that is padding; read apart, for a pass over training data is an epoch of it."""
    sizes = np.array([(tf.math.count_nonzero(y), tf.size(y)) for _, y in read(pattern, batch_size, group_by_length)])
    return 1 - sizes[:, 0].sum() / sizes[:, 1].sum()


def build_model() -> keras.Model:
    # mask_zero: layers and loss leave out what is padded.
    layers = [keras.layers.Embedding(256, 16, mask_zero=True), keras.layers.GRU(64, return_sequences=True)]
    return keras.Sequential([keras.Input((None,), dtype="int64"), *layers, keras.layers.Dense(256)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=64, help="lines of all workers together")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--text", type=Path, help="a file whose lines to learn")
    parser.add_argument("--folder", default=FOLDER, help="of the files, one that all workers see")
    args = parser.parse_args()

    strategy = tfdist.MultiWorkerMirroredStrategy()  # first, before TensorFlow uses a device
    keras.utils.set_random_seed(0)
    lines = lines_of_text(args.text)
    base = os.path.join(args.folder, f"text-{len(lines)}")
    pattern = base + "-*.tfrecord"
    with strategy.scope():
        write_on_chief(base + ".tfdist-index", lambda: write(lines, pattern))
        train = read(pattern, args.batch_size, GROUPED)
        shares = [padding(pattern, args.batch_size, batches) for batches in (GROUPED, 0)]
        model = build_model()
        # No metrics: Keras' averages of masked values depend on how much is padded.
        model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    if strategy.is_chief:
        print("padding: {:.0%} of each batch, {:.0%} without group_by_length".format(*shares))
    model.fit(train, epochs=args.epochs, shuffle=False, verbose=2)
    loss = model.evaluate(train, verbose=0)
    print(f"replicas: {strategy.num_replicas_in_sync}, perplexity: {math.exp(loss):.3f}")


if __name__ == "__main__":
    main()
