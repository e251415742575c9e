"""Trains models that are not tfdist's, `stock_program.py without|beside RESULT.npz`: without tfdist or beside it."""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf

ROWS, BATCH, EPOCHS = 24, 8, 2
CPUS = ["CPU:0", "CPU:1"]


def make_model() -> keras.Model:
    """Of what the shims touch: seeds, moving averages, both kinds of added losses, clipping, averages, metrics."""
    model = keras.Sequential(
        [
            keras.Input([4]),
            keras.layers.Dense(8, "relu", kernel_regularizer="l2", activity_regularizer="l2"),
            keras.layers.BatchNormalization(synchronized=True),
            keras.layers.Dropout(0.3, seed=3),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01, global_clipnorm=0.5, use_ema=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def make_data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    return random.normal(size=[ROWS, 4]).astype("float32"), random.integers(0, 3, [ROWS])


def train(strategy: tf.distribute.Strategy) -> dict[str, np.ndarray]:
    """Weights, optimizer's variables, history, evaluation and predictions."""
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = make_model()
    x, y = make_data()
    history = model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, validation_split=1 / 3, verbose=0).history
    variables = [*model.variables, *model.optimizer.variables]
    results = {f"variable {index}": variable.numpy() for index, variable in enumerate(variables)}
    results |= {f"history {name}": np.array(values) for name, values in history.items()}
    results["evaluate"] = np.array(model.evaluate(x, y, batch_size=BATCH, verbose=0))
    results["predict"] = model.predict(x, batch_size=BATCH, verbose=0)
    results["train on batch"] = np.array(model.train_on_batch(x, y))
    return results


def train_with_tfdist() -> None:
    """All shims are in place afterwards, and have been used."""
    import tfdist

    train(tfdist.MirroredStrategy(CPUS))


def main(mode: str, path: str) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * len(CPUS))
    tf.config.experimental.enable_op_determinism()
    if mode == "beside":
        train_with_tfdist()
    plain = train(tf.distribute.get_strategy())
    mirrored = train(tf.distribute.MirroredStrategy(CPUS))
    if mode == "without" and "tfdist" in sys.modules:
        raise RuntimeError("tfdist was imported")
    results = {f"plain {name}": value for name, value in plain.items()}
    results |= {f"mirrored {name}": value for name, value in mirrored.items()}
    np.savez(path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
