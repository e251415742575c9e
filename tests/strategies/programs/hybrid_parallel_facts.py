"""`python -m tests.strategies.programs.hybrid_parallel_facts OUTPUT.json`: what a model on a mesh of 2 x 2 is like."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow.experimental import dtensor

import tfdist
from tests.strategies.programs.hybrid_parallel import OPTIMIZERS, data, flat, transformer
from tfdist._compat.tensorflow_dtensor_variables import as_kept
from tfdist.parallel import initial_values

MESH = {"batch": 2, "model": 2}


class Heard(logging.Handler):
    """What tfdist has warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def under(strategy: Any, build: Callable[[], keras.Model]) -> keras.Model:
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = build()
        model.compile(OPTIMIZERS["adam"](), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def small(width: int = 8) -> keras.Model:
    return keras.Sequential([keras.Input((8,)), layers.Dense(width, name="up"), layers.Dense(4, name="down")])


def measured(variables: list[Any]) -> list[int]:
    """Bytes on each device."""
    with as_kept():
        parts = [dtensor.unpack(variable.value.read_value()) for variable in variables]
    return [sum(part[device].numpy().nbytes for part in parts) for device in range(4)]


def memory() -> dict[str, Any]:
    """Of one transformer, by how it is split: measured, and as the summary has it."""
    found = {}
    for name, options in {
        "whole": {},
        "zero1": {"zero_stage": 1},
        "fsdp": {"zero_stage": 3},
        "tensor": {"layout_map": tfdist.layouts.transformer()},
        "fsdp_tensor": {"layout_map": tfdist.layouts.transformer(), "zero_stage": 3},
    }.items():
        strategy = tfdist.HybridParallelStrategy(MESH, **options)
        model = under(strategy, transformer)
        report = strategy.summary(model, print_fn=None)
        found[name] = {
            "parameters": measured(model.weights),
            "slots": measured(model.optimizer.variables),
            "reported": [report.parameter_bytes, report.slot_bytes],
            "whole": sum(row.parameter_bytes for row in report.rows if row.path in report.replicated),
            "table": str(report),
        }
    return found


def files() -> dict[str, Any]:
    """Of what is saved under one strategy, what plain Keras and another strategy load."""
    x, y = data(model := under(fsdp(), transformer), 8)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    expected = model.predict(x, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.keras"
        model.save(path)
        model.save_weights(f"{folder}/model.weights.h5")
        plain = keras.models.load_model(path)
        other = tfdist.HybridParallelStrategy({"model": 4}, tfdist.layouts.transformer())
        with other.scope():
            loaded = keras.models.load_model(path)
            fresh = transformer()
        fresh.load_weights(f"{folder}/model.weights.h5")
    found = {
        "plain": plain.predict(x, verbose=0),
        "other": loaded.predict(x, verbose=0),
        "weights": fresh.predict(x, verbose=0),
    }
    differences = {name: float(np.abs(value - expected).max()) for name, value in found.items()}
    for one in (plain, loaded):
        one.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    differences["goes on"] = float(np.abs(flat(plain.get_weights()) - flat(loaded.get_weights())).max())
    return differences | {"kernel": loaded.get_layer("up").kernel.value.layout.sharding_specs}


def fsdp() -> Any:
    return tfdist.HybridParallelStrategy(MESH, tfdist.layouts.transformer(), zero_stage=3)


def errors() -> dict[str, str]:
    """What is said to mistakes."""

    def train(build: Callable[[], keras.Model] = small, layout_map: Any = None, x: Any = None, **options: Any) -> None:
        strategy = tfdist.HybridParallelStrategy(MESH, layout_map)
        with strategy.scope():
            model = build()
            model.compile("sgd", "mse", **options)
        model.fit(np.zeros((8, 8), "float32") if x is None else x, np.zeros((8, 4), "float32"), verbose=0)

    def pooled() -> keras.Model:
        shaped = [keras.Input((8,)), layers.Dense(8), layers.Reshape((4, 2))]
        return keras.Sequential([*shaped, layers.AveragePooling1D(2), layers.Flatten(), layers.Dense(4)])

    def looped() -> keras.Model:
        return keras.Sequential([keras.Input((8,)), layers.Lambda(lambda x: tf.map_fn(tf.nn.relu, x)), layers.Dense(4)])

    def masked() -> keras.Model:
        inputs = keras.Input((8,))
        rows = layers.Reshape((4, 2))(inputs)
        rows = layers.MultiHeadAttention(2, 2)(rows, rows, use_causal_mask=True)
        return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(rows)))

    counted = keras.metrics.MeanSquaredError(name="counted")

    mistakes: dict[str, Callable[[], Any]] = {
        "too few devices": lambda: tfdist.HybridParallelStrategy({"batch": 8}),
        "other number of devices": lambda: tfdist.HybridParallelStrategy(MESH, devices=["CPU:0"]),
        "devices that aren't there": lambda: tfdist.HybridParallelStrategy({"batch": 2}, devices=["CPU:0", "CPU:7"]),
        "wrong rank": lambda: train(layout_map={".*up/kernel": ("model",)}),
        "two rules": lambda: train(layout_map={".*up/kernel": (None, "model"), ".*kernel": ("model", None)}),
        "xla": lambda: train(jit_compile=True),
        "operation": lambda: train(pooled),
        "loop": lambda: train(looped),
        "eager mask": lambda: train(masked, run_eagerly=True),
        "metric made outside": lambda: train(metrics=[counted]),
        "ragged": lambda: train(x=tf.ragged.constant([[0.0]] * 8)),
        "cut too late": lambda: tfdist.layouts.logical_cpus(2),
    }
    found = {}
    for name, make in mistakes.items():
        try:
            make()
        except (ValueError, RuntimeError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def warnings() -> list[str]:
    """What is warned of: a dimension that isn't divisible, and a key without a variable."""
    heard = Heard()
    logging.getLogger("tfdist").addHandler(heard)
    strategy = tfdist.HybridParallelStrategy(MESH, {".*up/kernel": (None, "model"), ".*nowhere": ("model",)})
    model = under(strategy, lambda: small(width=7))
    model.fit(np.zeros((8, 8), "float32"), np.zeros(8), verbose=0)
    model.fit(np.zeros((8, 8), "float32"), np.zeros(8), verbose=0)
    return heard.texts


def keras_own() -> dict[str, Any]:
    """Code for Keras' ModelParallel, with its mesh and its map."""
    devices = keras.distribution.DeviceMesh((2, 2), ["data", "model"], [f"cpu:{i}" for i in range(4)])
    layout_map = keras.distribution.LayoutMap(devices)
    layout_map[".*up/kernel"] = (None, "model")
    layout_map[".*down/kernel"] = keras.distribution.TensorLayout(("model", None), devices)
    strategy = tfdist.HybridParallelStrategy(devices, layout_map, batch_axis="data")
    model = under(strategy, small)
    return {one.path.split("/", 1)[-1]: one.value.layout.sharding_specs for one in model.weights}


def loop_of_ones_own() -> dict[str, float]:
    """tf.distribute's idiom, on the mesh and on one device."""
    strategy, losses, ends = fsdp(), {}, {}
    x, y = np.random.RandomState(0).randn(16, 8).astype("float32"), np.arange(16) % 4
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    for name, one in {"mesh": strategy, "one": tf.distribute.OneDeviceStrategy("CPU:0")}.items():
        model = under(one, small)
        with one.scope():
            model.optimizer.build(model.trainable_variables)

        def step(inputs: Any, targets: Any, model: Any = model) -> Any:
            with tf.GradientTape() as tape:
                loss = model.loss(targets, model(inputs, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss

        run = tf.function(lambda inputs, targets, one=one, step=step: one.run(step, args=(inputs, targets)))
        losses[name] = [float(run(*batch)) for batch in one.experimental_distribute_dataset(batches)]
        ends[name] = flat(model.get_weights())
    return {
        "losses": float(np.abs(np.subtract(losses["mesh"], losses["one"])).max()),
        "weights": float(np.abs(ends["mesh"] - ends["one"]).max()),
    }


def called() -> float:
    """A model that is called on arrays, outside of fit."""
    model = under(fsdp(), small)
    x = np.ones((3, 8), "float32")
    return float(np.abs(np.asarray(model(x)) - model.predict(x, verbose=0)).max())


def planned() -> dict[str, Any]:
    """A plan for a memory limit, what it comes to, and a step of training."""

    def build() -> keras.Model:
        inputs = keras.Input((8,), dtype="int32")
        hidden = layers.Embedding(64, 32, name="table")(inputs)
        hidden = hidden + layers.MultiHeadAttention(4, 8, name="attention")(hidden, hidden)
        hidden = hidden + layers.Dense(32, name="down")(layers.Dense(64, activation="gelu", name="up")(hidden))
        return keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(hidden)))

    plan = tfdist.layouts.auto(build, MESH, memory_limit_bytes=64_000)
    strategy = tfdist.HybridParallelStrategy(**plan.options)
    model = under(strategy, build)
    report = strategy.summary(model, print_fn=None)
    x, y = np.random.RandomState(0).randint(0, 64, (8, 8)), np.arange(8) % 4
    losses = [model.train_on_batch(x, y) for _ in range(2)]
    alone = under(tf.distribute.OneDeviceStrategy("CPU:0"), build)
    expected = [alone.train_on_batch(x, y) for _ in range(2)]
    return {
        "stage": plan.zero_stage,
        "planned": [plan.report.parameter_bytes, plan.report.slot_bytes, plan.report.gradient_bytes],
        "reported": [report.parameter_bytes, report.slot_bytes - report.other_slot_bytes, report.gradient_bytes],
        "whole": report.replicated,
        "losses": float(np.abs(np.subtract(losses, expected)).max()),
        "weights": float(np.abs(flat(model.get_weights()) - flat(alone.get_weights())).max()),
    }


def drawn_by_blocks() -> dict[str, float]:
    """First weights of a model whose variables are larger than a block, and how many rows were drawn at once."""
    initial_values._BLOCK_BYTES = 512
    initializers = ["glorot_uniform", "he_normal", "random_uniform", "truncated_normal"]

    def build() -> keras.Model:
        inputs = keras.Input((16,))
        hidden = [layers.Dense(32, kernel_initializer=name)(inputs) for name in initializers]
        return keras.Model(inputs, layers.Dense(4)(layers.Concatenate()(hidden)))

    keras.utils.set_random_seed(1)
    expected = build()
    whole = flat(expected.get_weights())
    rows: list[int] = []
    drawing = initial_values.drawing
    initial_values.drawing = lambda one: rows.append(one.count) or drawing(one)
    found = {
        f"zero_stage={stage}": float(np.abs(flat(under(strategy, build).get_weights()) - whole).max())
        for stage in (0, 3)
        for strategy in [tfdist.HybridParallelStrategy(MESH, {".*dense[_0-9]*/kernel": by_width}, zero_stage=stage)]
    }
    return found | {"rows": max(rows), "blocks": len(rows)}


def by_width(shape: tuple[int, ...]) -> tuple[str | None, ...]:
    return tfdist.layouts.by_width("model")(shape)


def main(output: str) -> None:
    tfdist.layouts.logical_cpus(4)
    facts = (memory, files, errors, warnings, keras_own, loop_of_ones_own, called, planned, drawn_by_blocks)
    found = {}
    for fact in facts:
        found[fact.__name__] = fact()
        print(fact.__name__, found[fact.__name__], flush=True)
    Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
