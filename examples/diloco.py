"""DiLoCo: workers train a character transformer by themselves, and exchange what they learned every 50 steps.

    tfdist launch --workers=2 examples/diloco.py
    tfdist launch --workers=4 examples/diloco.py --text=tinyshakespeare.txt --steps=4000

Learns the next character of tfdist's own source, or of a file. With --sync_every_steps=0 gradients are exchanged in
every step, for comparison. Douillard et al. 2023, arXiv:2311.08105.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfdist

CONTEXT = 64


def load_text(file: Path | None) -> np.ndarray:
    """Characters as numbers below 128."""
    files = [file] if file else sorted(Path(tfdist.__file__).parent.rglob("*.py"))
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    return np.frombuffer(text.encode("ascii", "replace"), np.uint8)


def batches(text: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """(characters, the next ones), [batch_size, CONTEXT] each, in another order in each pass."""
    windows = text[: len(text) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
    data = tf.data.Dataset.from_tensor_slices((windows[:, :-1], windows[:, 1:]))
    # One seed for all workers: they must see the same batches.
    return data.shuffle(len(windows), seed=0).batch(batch_size, drop_remainder=True)


def build_transformer(width: int = 64, blocks: int = 2, heads: int = 4) -> keras.Model:
    """Logits of the next characters, [rows, CONTEXT, 128]."""
    characters = keras.Input((CONTEXT,), dtype="int32")
    places = keras.ops.arange(CONTEXT)
    x = keras.layers.Embedding(128, width)(characters) + keras.layers.Embedding(CONTEXT, width)(places)
    for _ in range(blocks):
        normal = keras.layers.LayerNormalization()(x)
        x += keras.layers.MultiHeadAttention(heads, width // heads)(normal, normal, use_causal_mask=True)
        normal = keras.layers.LayerNormalization()(x)
        x += keras.layers.Dense(width)(keras.layers.Dense(4 * width, activation="gelu")(normal))
    return keras.Model(characters, keras.layers.Dense(128)(keras.layers.LayerNormalization()(x)))


def make_strategy(args: argparse.Namespace) -> tf.distribute.Strategy:
    if args.sync_every_steps == 0:
        return tfdist.MultiWorkerMirroredStrategy()
    return tfdist.LocalSGDStrategy(
        sync_every_steps=args.sync_every_steps,
        outer_optimizer=lambda: keras.optimizers.SGD(args.outer_rate, momentum=args.outer_momentum, nesterov=True),
    )


def build_model(strategy: tf.distribute.Strategy, args: argparse.Namespace) -> keras.Model:
    """The transformer with AdamW, whose rate rises for a twentieth of the steps and falls along a cosine."""
    rise = {"warmup_target": args.learning_rate, "warmup_steps": args.steps // 20}
    rate = keras.optimizers.schedules.CosineDecay(0.0, args.steps - rise["warmup_steps"], **rise)
    with strategy.scope():
        model = build_transformer()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(rate, weight_decay=0.1), loss)
    return model


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a file whose text to learn")
    parser.add_argument("--sync_every_steps", type=int, default=50, help="steps between two exchanges")
    parser.add_argument("--learning_rate", type=float, default=5e-3, help="of AdamW, which falls along a cosine")
    parser.add_argument("--outer_rate", type=float, default=0.8, help="of the step that all make together")
    parser.add_argument("--outer_momentum", type=float, default=0.7)
    parser.add_argument("--batch_size", type=int, default=64, help="windows of 64 characters, of all workers together")
    parser.add_argument("--steps", type=int, default=400)
    return parser


def main() -> None:
    args = arguments().parse_args()
    strategy = make_strategy(args)  # first, before TensorFlow uses a device
    keras.utils.set_random_seed(0)
    text = load_text(args.text)
    train, test = (batches(part, args.batch_size) for part in np.split(text, [len(text) * 9 // 10]))
    model = build_model(strategy, args)
    model.fit(train.repeat(), steps_per_epoch=args.steps, shuffle=False, verbose=2)
    print(
        f"workers: {strategy.num_workers}, steps: {int(model.optimizer.iterations)}, exchange every "
        f"{args.sync_every_steps or 1} steps, validation loss: {model.evaluate(test, verbose=0):.4f}"
    )


if __name__ == "__main__":
    main()
