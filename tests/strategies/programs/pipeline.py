"""Models in stages on logical CPUs give what one device without a strategy gives on whole batches.
Run as a program: `python -m tests.strategies.programs.pipeline CASE ...`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from keras import optimizers as opt

import tfdist
from tests.helpers.cases.accumulation import cut
from tests.helpers.setups import Setup, compiled, labels, report
from tests.strategies.programs.micro_batches import OwnLogs

#: Float32 rounding of gradients that were added up in another order; Adam divides small ones by their size.
TOLERANCE = 2e-6
#: Ragged: 7 micro-batches of 10 rows are of 1 or 2, and of 3 rows four are empty.
SIZES = (10, 10, 7, 3)
ROWS = sum(SIZES)
HOST, *DEVICES = [f"CPU:{index}" for index in range(5)]
SIDE_BY_SIDE = [DEVICES[:2], DEVICES[2:]]
RANDOM = np.random.RandomState(0)
VECTORS = RANDOM.randn(ROWS, 6).astype("float32")
IMAGES = RANDOM.randn(ROWS, 8, 8, 1).astype("float32")
TOKENS = RANDOM.randint(0, 11, (ROWS, 5))
SAMPLE_WEIGHT = RANDOM.rand(ROWS).astype("float32")


def mlp() -> keras.Model:
    hidden = [layers.Dense(8, activation="tanh") for _ in range(4)]
    return keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3)])


def regularized() -> keras.Model:
    """Losses of weights and of activations, in different stages."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="tanh", kernel_regularizer="l2", activity_regularizer="l1")(inputs)
    x = layers.Dense(8, activation="tanh", bias_regularizer="l1")(x)
    return keras.Model(inputs, layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l2")(x))


def cnn() -> keras.Model:
    convolutions = [layers.Conv2D(4, 3, activation="relu"), layers.Conv2D(6, 3, activation="relu")]
    rest = [layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(8, activation="tanh"), layers.Dense(3)]
    return keras.Sequential([keras.Input((8, 8, 1)), *convolutions, *rest])


def transformer() -> keras.Model:
    """Residuals cross boundaries, padding's mask goes through all stages."""
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(11, 8, mask_zero=True)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(8)(layers.Dense(16, activation="gelu")(x)))
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def recurrent() -> keras.Model:
    """Loops, and a mask that every stage needs."""
    tokens = keras.Input((5,), dtype="int32")
    x = layers.LSTM(6, return_sequences=True)(layers.Embedding(11, 8, mask_zero=True)(tokens))
    return keras.Model(tokens, layers.Dense(3)(layers.Bidirectional(layers.GRU(5))(x)))


def own_logs() -> keras.Model:
    inputs = keras.Input((6,))
    return OwnLogs(inputs, layers.Dense(3)(layers.Dense(8, activation="tanh")(inputs)))


def tied() -> keras.Model:
    """A layer that the first and the last stage share, and one inside another model."""
    tokens = keras.Input((5,), dtype="int32")
    embedding = layers.Embedding(11, 8)
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, activation="tanh"), layers.Dense(8)])
    x = layers.GlobalAveragePooling1D()(embedding(tokens))
    last = layers.GlobalAveragePooling1D()(embedding(tokens[:, :2]))
    return keras.Model(tokens, layers.Dense(3)(inner(x) + last))


def normalized(**options: Any) -> keras.Model:
    """Statistics of a batch, so that only a whole one gives the same."""
    normalization = layers.BatchNormalization(**options)
    return keras.Sequential([keras.Input((6,)), layers.Dense(8), normalization, layers.Dense(3)])


@dataclass
class Case:
    """A training, in stages and on one device."""

    build: Callable[[], keras.Model]
    data: np.ndarray
    devices: Any = 2
    micro_batches: int = 4
    optimizer: Callable[[], Any] = lambda: opt.Adam(0.01)
    options: dict[str, Any] | None = None
    compile_options: dict[str, Any] | None = None

    def strategy(self) -> tfdist.PipelineStages:
        devices = DEVICES[: self.devices] if isinstance(self.devices, int) else self.devices
        return tfdist.PipelineStages(devices, micro_batches=self.micro_batches, **self.options or {})

    def run(self, setup: Setup) -> dict[str, Any]:
        with setup.scope():
            model = compiled(self.build(), self.optimizer, weighted_metrics=["accuracy"], **self.compile_options or {})
        data = cut(SIZES, self.data, labels(ROWS), SAMPLE_WEIGHT)
        history = model.fit(data, epochs=2, verbose=0)
        history.history.pop("label", None)  # Keras keeps the last batch's
        return report(
            model,
            history,
            evaluated=np.asarray(model.evaluate(data, verbose=0)),
            predicted=model.predict(self.data, batch_size=8, verbose=0),
            iterations=np.asarray(model.optimizer.iterations),
            slots=np.concatenate([np.ravel(one) for one in model.optimizer.variables]),
        )


def clipped() -> opt.Optimizer:
    """The biases of attention's keys have no gradient but rounding, which Adam would make a step of."""
    return opt.Adam(0.01, global_clipnorm=0.1, epsilon=1e-3)


def averaged() -> opt.Optimizer:
    return opt.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3)


def scaled() -> opt.Optimizer:
    return opt.LossScaleOptimizer(opt.AdamW(0.01, weight_decay=0.1), initial_scale=4.0, dynamic_growth_steps=3)


def scaled_and_clipped() -> opt.Optimizer:
    inner = opt.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.1)
    return opt.LossScaleOptimizer(inner, initial_scale=4.0, dynamic_growth_steps=3)


CASES = {
    "one whole batch": Case(mlp, VECTORS, micro_batches=1),
    "sgd": Case(mlp, VECTORS, optimizer=lambda: opt.SGD(0.1)),
    "momentum, seven micro-batches, four stages": Case(
        mlp, VECTORS, 4, 7, lambda: opt.SGD(0.1, momentum=0.9), {"schedule": "gpipe"}
    ),
    "cnn, clipped": Case(cnn, IMAGES, 2, 4, clipped, {"boundaries": ["flatten"]}),
    "transformer, clipped, four stages": Case(transformer, TOKENS, 4, 4, clipped),
    "transformer, more micro-batches than rows": Case(transformer, TOKENS, 2, 7, clipped),
    "averaged weights": Case(mlp, VECTORS, optimizer=averaged),
    "loss scale": Case(mlp, VECTORS, optimizer=scaled),
    "regularizers": Case(regularized, VECTORS, 3, 2),
    "shared and nested layers": Case(tied, TOKENS, 3, 4),
    "recurrent, masked": Case(recurrent, TOKENS, 3, 2),
    "batch normalization, one micro-batch": Case(normalized, VECTORS, 2, 1),
    "executions of three": Case(mlp, VECTORS, 2, 2, compile_options={"steps_per_execution": 3}),
    "eagerly": Case(mlp, VECTORS, compile_options={"run_eagerly": True}),
    "own logs": Case(own_logs, VECTORS),
    "two pipelines": Case(mlp, VECTORS, SIDE_BY_SIDE, 3, scaled_and_clipped),
    "two pipelines, transformer": Case(transformer, TOKENS, SIDE_BY_SIDE, 7, clipped, {"schedule": "gpipe"}),
    "two pipelines, one whole batch": Case(cnn, IMAGES, SIDE_BY_SIDE, 1, averaged),
    "two pipelines, regularizers": Case(regularized, VECTORS, SIDE_BY_SIDE, 2),
    "two pipelines, shared and nested layers": Case(tied, TOKENS, SIDE_BY_SIDE, 2),
    "two pipelines, synchronized normalization": Case(
        lambda: normalized(synchronized=True), VECTORS, SIDE_BY_SIDE, 1, lambda: opt.SGD(0.1)
    ),
    "two pipelines, executions of three": Case(
        mlp, VECTORS, SIDE_BY_SIDE, 2, compile_options={"steps_per_execution": 3}
    ),
    "two pipelines, eagerly": Case(mlp, VECTORS, SIDE_BY_SIDE, 2, compile_options={"run_eagerly": True}),
    "two pipelines, own logs": Case(own_logs, VECTORS, SIDE_BY_SIDE),
}


def check(name: str) -> None:
    case, one_device = CASES[name], Setup(None)
    found, expected = case.run(Setup(case.strategy())), case.run(one_device)
    assert found.keys() == expected.keys(), (name, found.keys(), expected.keys())
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=f"{name}: {key}")
    print(name, "done", flush=True)


def main() -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 5)
    for name in sys.argv[1:]:
        check(name)


if __name__ == "__main__":
    main()
