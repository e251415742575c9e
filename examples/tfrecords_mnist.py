"""TFRecord files: the chief writes them, once; then each worker reads its own part and decodes its own images.

    tfdist launch --workers=2 examples/tfrecords_mnist.py
    tfdist launch --workers=2 examples/tfrecords_mnist.py --data=mnist --folder=mnist-records
    tfdist train configs/tfrecords.yaml

Trains on the digits that come with tfdist, or on MNIST: mnist.npz in the folder TFDIST_DATA_DIR, or else downloaded.
Look at the files with: tfdist data inspect 'FOLDER/digits-train-*.tfrecord'
"""

from __future__ import annotations

import argparse
import os
import tempfile
from typing import Any

import keras
import tensorflow as tf
from common import IMAGE_SHAPES, build_model, compile_model, load_arrays, write_on_chief

import tfdist

FOLDER = os.path.join(tempfile.gettempdir(), "tfdist-examples")


def load(split: str, *, batch_size: int, data: str = "digits", folder: str = FOLDER) -> tf.data.Dataset:
    """Batches of (image, label), from files that are written first where they aren't there; in a strategy's scope."""
    pattern = os.path.join(folder, f"{data}-{split}-*.tfrecord")
    write_on_chief(os.path.join(folder, f"{data}-{split}.tfdist-index"), lambda: _write(data, split, pattern))
    records = tfdist.data.read_tfrecords(pattern, batch_size=batch_size, label="label", shuffle=split == "train")
    return records.map(_scaled)


def _write(data: str, split: str, pattern: str) -> None:
    features = {"image": tfdist.data.Image(IMAGE_SHAPES[data]), "label": tfdist.data.Tensor((), "int64")}
    index = tfdist.data.write_tfrecords(load_arrays(data)[split], pattern, features, num_shards=4)
    print(f"wrote {index.num_records} images, PNG, to {pattern}")


def _scaled(features: dict[str, Any], label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cast(features["image"], tf.float32) / 255.0, label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--folder", default=FOLDER, help="of the files, one that all workers see")
    parser.add_argument("--batch_size", type=int, default=64, help="rows of all workers together")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--backup", help="a folder to go on from after a kill, one that all workers see")
    args = parser.parse_args()

    strategy = tfdist.MultiWorkerMirroredStrategy()  # first, before TensorFlow uses a device
    keras.utils.set_random_seed(0)
    with strategy.scope():
        options = {"batch_size": args.batch_size, "data": args.data, "folder": args.folder}
        train, test = load("train", **options), load("test", **options)
        model = build_model(args.data)
        compile_model(model)
    # Killed and started again, it goes on in the middle of an epoch with the records that it hasn't used.
    callbacks = [keras.callbacks.BackupAndRestore(args.backup, save_freq=10)] if args.backup else []
    model.fit(train, epochs=args.epochs, validation_data=test, callbacks=callbacks, shuffle=False, verbose=2)
    results = model.evaluate(test, verbose=0, return_dict=True)
    print(f"replicas: {strategy.num_replicas_in_sync}, accuracy: {results['accuracy']:.4f}")


if __name__ == "__main__":
    main()
