"""A transformer that learns to go on with a text, character by character, on a mesh of 2 x 2 devices.

python examples/char_transformer.py
python examples/char_transformer.py --text=tinyshakespeare.txt --vocabulary=65536

Heads of attention, Dense layers and the vocabulary are split over "model", rows of the batch over "batch"; no device
has all logits. Learns the documentation of this project, or a text of your own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfdist

TIME, HEADS = 32, 4
DOCS = Path(__file__).parent.parent / "docs"


def load_text(batch_size: int, text: str | None = None) -> tf.data.Dataset:
    """Batches of (bytes, the bytes that follow each), int32 [batch_size, TIME]."""
    files = [Path(text)] if text else sorted(DOCS.glob("*.md"))
    characters = np.frombuffer(b"".join(file.read_bytes() for file in files), np.uint8).astype("int32")
    rows = (len(characters) - 1) // TIME
    x, y = (characters[first : first + rows * TIME].reshape(rows, TIME) for first in (0, 1))
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(rows, seed=0)
    return data.batch(batch_size, drop_remainder=True)


def build_model(vocabulary: int = 256, width: int = 64, blocks: int = 2) -> keras.Model:
    """A decoder."""
    inputs = keras.Input((TIME,), dtype="int32")
    hidden = keras.layers.Embedding(vocabulary, width, name="table")(inputs)  # places are seen by what is masked
    for number in range(blocks):
        normal = keras.layers.LayerNormalization()(hidden)
        hidden = hidden + keras.layers.MultiHeadAttention(HEADS, width // HEADS)(normal, normal, use_causal_mask=True)
        normal = keras.layers.LayerNormalization()(hidden)
        wide = keras.layers.Dense(4 * width, activation="gelu", name=f"up_{number}")(normal)
        hidden = hidden + keras.layers.Dense(width, name=f"down_{number}")(wide)
    return keras.Model(inputs, keras.layers.Dense(vocabulary, name="head")(keras.layers.LayerNormalization()(hidden)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", help="a file; the documentation of this project if there is none")
    parser.add_argument("--vocabulary", type=int, default=256)
    parser.add_argument("--zero_stage", type=int, choices=[0, 1, 3], default=0)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()

    strategy = tfdist.HybridParallelStrategy(  # the only line that changes
        {"batch": 2, "model": 2},
        tfdist.layouts.transformer(),
        zero_stage=args.zero_stage,
        devices=tfdist.layouts.logical_cpus(4),  # without it, the GPUs
    )
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build_model(args.vocabulary)
        model.compile(
            keras.optimizers.Adam(3e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    strategy.summary(model)
    data = load_text(args.batch_size, args.text).repeat()
    history = model.fit(data, epochs=2, steps_per_epoch=args.steps // 2, verbose=2)
    print(f"devices: {strategy.mesh_axes.num_devices}, accuracy: {history.history['accuracy'][-1]:.4f}")


if __name__ == "__main__":
    main()
