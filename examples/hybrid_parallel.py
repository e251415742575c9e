"""A small transformer split over a mesh of 2 x 2 devices: rows of the batch, attention heads, and FSDP.

python examples/hybrid_parallel.py
python examples/hybrid_parallel.py --zero_stage=0 --epochs=3
"""

from __future__ import annotations

import argparse

import keras
import tensorflow as tf
from common import load_data

import tfdist

WIDTH, HEADS, CLASSES = 32, 4, 10


def devices() -> list[str]:
    """The first four GPUs; without them, the CPU cut into four logical devices."""
    gpus = tf.config.list_physical_devices("GPU")
    return [f"GPU:{index}" for index in range(4)] if len(gpus) >= 4 else tfdist.layouts.logical_cpus(4)


def build_model() -> keras.Model:
    """Two transformer blocks over the eight rows of a picture of a digit."""
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Dense(WIDTH, name="rows")(keras.layers.Reshape((8, 8))(inputs))
    for _ in range(2):
        normal = keras.layers.LayerNormalization()(hidden)
        hidden = hidden + keras.layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(normal, normal)
        normal = keras.layers.LayerNormalization()(hidden)
        hidden = hidden + keras.layers.Dense(WIDTH)(keras.layers.Dense(4 * WIDTH, activation="gelu")(normal))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.GlobalAveragePooling1D()(hidden)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zero_stage", type=int, choices=[0, 1, 3], default=3)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    strategy = tfdist.HybridParallelStrategy(  # the only line that changes
        {"batch": 2, "model": 2}, tfdist.layouts.transformer(), zero_stage=args.zero_stage, devices=devices()
    )
    keras.utils.set_random_seed(0)
    train, test = load_data("digits", args.batch_size)
    with strategy.scope():
        model = build_model()
        model.compile(
            keras.optimizers.Adam(3e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    strategy.summary(model)
    model.fit(train, epochs=args.epochs, validation_data=test, verbose=2)
    results = model.evaluate(test, verbose=0, return_dict=True)
    print(f"devices: {strategy.mesh_axes.num_devices}, accuracy: {results['accuracy']:.4f}")


if __name__ == "__main__":
    main()
