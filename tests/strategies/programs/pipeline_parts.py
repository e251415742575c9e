"""Where a pipeline's operations and variables are, what is in flight, what files hold, what is refused.
Run as a program: `python -m tests.strategies.programs.pipeline_parts FOLDER`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import tfdist
from tests.helpers.setups import compiled, labels
from tests.strategies.programs.pipeline import DEVICES, ROWS, VECTORS, mlp

STRATEGY = tfdist.PipelineStages


def build(strategy: Any, make: Any = mlp, optimizer: Any = "adam", **options: Any) -> keras.Model:
    keras.utils.set_random_seed(7)
    with strategy.scope():
        return compiled(make(), optimizer, **options)


def fit(model: keras.Model, data: np.ndarray = VECTORS, **options: Any) -> keras.callbacks.History:
    return model.fit(data, labels(ROWS), batch_size=10, shuffle=False, verbose=0, **options)


def graphs_in(graph: Any) -> Iterator[Any]:
    """A graph, and those of the conditionals in it."""
    yield graph
    for op in graph.get_operations():
        called = [attribute.func.name for attribute in op.node_def.attr.values() if attribute.HasField("func")]
        for function in map(graph._get_function, called):
            if getattr(function, "graph", None) is not None:
                yield from graphs_in(function.graph)


def operations(model: keras.Model) -> list[Any]:
    """Of the train function that `fit` has made, its conditionals' included."""
    *_, function = model.train_function._one_step._list_all_concrete_functions()
    return [op for graph in graphs_in(function.graph) for op in graph.get_operations()]


def stage_of(op: Any) -> int:
    """By the number of the device; the host is -1."""
    assert op.device, op.name
    return int(op.device[-1]) - 1


def test_forward_backward_and_update_of_a_layer_are_on_its_device() -> None:
    """Devices are CPU:1 to 4 and CPU:0 is the host, so nothing can be where it should by accident."""
    model = build(STRATEGY(DEVICES, micro_batches=2), lambda: named(8, 9, 10, 11, **REGULARIZED), clipped_and_averaged)
    fit(model)
    found = operations(model)
    products = [op for op in found if op.type == "MatMul"]
    for index in range(4):
        mine = [op for op in products if f"layer{index}" in op.name]
        # Of each micro-batch: forward, the kernel's gradient, and but for the first layer the input's.
        assert len(mine) == 2 * (3 if index else 2), [op.name for op in mine]
        assert {stage_of(op) for op in mine} == {index}, [(op.name, op.device) for op in mine]
    # What has a kernel's shape is a gradient, a slot or an update: each stage's kernel has a width of its own.
    width = {8: 0, 9: 1, 10: 2, 11: 3}
    kernels = [op for op in found for out in op.outputs if out.shape.rank == 2 and out.shape[0] is not None]
    checked = [op for op in kernels if op.outputs[0].shape[1] in width and op.device]
    assert len(checked) > 80, len(checked)
    wrong = [op for op in checked if stage_of(op) != width[op.outputs[0].shape[1]]]
    assert not wrong, [(op.name, op.device, op.outputs[0].shape) for op in wrong]


def clipped_and_averaged() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(0.01, global_clipnorm=0.1, use_ema=True)


#: Losses of weights and activations, whose gradients must not go elsewhere either.
REGULARIZED = {"kernel_regularizer": "l2", "activity_regularizer": "l2"}


def named(*units: int, **options: Any) -> keras.Model:
    hidden = [layers.Dense(n, activation="tanh", name=f"layer{index}", **options) for index, n in enumerate(units)]
    return keras.Sequential([keras.Input((6,)), *hidden])


def test_variables_are_where_their_stage_is() -> None:
    strategy = STRATEGY(DEVICES[:2], micro_batches=2, boundaries=["dense_out"])

    def make() -> keras.Model:
        return keras.Sequential([keras.Input((6,)), layers.Dense(50), layers.Dense(3, name="dense_out")])

    model = build(strategy, make)
    fit(model)
    held = dict.fromkeys(("CPU:0", *DEVICES), 0)
    optimizer = model.optimizer.variables
    slots = [v for slot in model.optimizer._tfdist_accumulation.state.slots.values() for v in slot.variables]
    for variable in [*(v.value for v in [*model.variables, *model.metrics_variables, *optimizer]), *slots]:
        held[variable.device[-5:]] += variable.dtype.size * variable.shape.num_elements()
    # Weights, Adam's two slots, and the sum of gradients: four times; float32. Counts and rates are the host's.
    assert held["CPU:1"] == 4 * 4 * (6 * 50 + 50), held
    assert held["CPU:2"] == 4 * 4 * (50 * 3 + 3) + 4 * 4, held  # and two metrics of two numbers
    assert held["CPU:3"] == held["CPU:4"] == 0, held
    assert held["CPU:0"] < 100, held


class Gauge(keras.layers.Layer):
    """Notes when a micro-batch passes, forwards and backwards; in Python, since variables would be an order."""

    def __init__(self, seen: list[int], **options: Any) -> None:
        super().__init__(**options)
        self.seen = seen.append  # Keras would copy a list

    def note(self, x: Any, passed: int) -> Any:
        noted = tf.numpy_function(lambda x: self.seen(passed) or x, [x], x.dtype, stateful=False)
        return tf.ensure_shape(noted, x.shape)

    def call(self, inputs: Any) -> Any:
        gauged = tf.custom_gradient(lambda x: (self.note(x, 1), lambda upstream: self.note(upstream, -1)))
        return gauged(inputs)


def most_in_flight(schedule: str, stages: int, micro_batches: int) -> list[int]:
    """Of each stage, in one batch; a gauge behind each stage's first layer."""
    seen: list[Any] = [[] for _ in range(stages)]
    boundaries = [f"layer{index}" for index in range(1, stages)]

    def make() -> keras.Model:
        parts = [(layers.Dense(4, name=f"layer{index}"), Gauge(one)) for index, one in enumerate(seen)]
        return keras.Sequential([keras.Input((6,)), *(layer for part in parts for layer in part), layers.Dense(3)])

    strategy = STRATEGY(DEVICES[:stages], micro_batches=micro_batches, boundaries=boundaries, schedule=schedule)
    fit(build(strategy, make))
    per_batch = 2 * micro_batches
    assert [len(one) for one in seen] == [per_batch * -(-ROWS // 10)] * stages, [len(one) for one in seen]
    return [int(np.cumsum(one).max()) for one in seen]


def test_micro_batches_in_flight() -> None:
    for most, stages_ahead in zip(most_in_flight("1f1b", 3, 6), [3, 2, 1], strict=True):
        assert most <= stages_ahead
    assert most_in_flight("gpipe", 3, 6) == [6, 6, 6]


def test_dropout_is_reproducible() -> None:
    def make() -> keras.Model:
        return keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.Dropout(0.5, seed=3), layers.Dense(3)])

    first, second = [fit(build(STRATEGY(DEVICES[:2], micro_batches=4), make)).history["loss"] for _ in range(2)]
    np.testing.assert_array_equal(first, second)


class Penalty(keras.Model):
    """A loss with a gradient in it, so that the model is run, and differentiated, twice in a step."""

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(x)
                total = tf.reduce_sum(self(x, training=True))
            slope = inner.gradient(total, x)
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True)) + tf.reduce_mean(slope**2)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"penalized": loss}


def penalty() -> keras.Model:
    inputs = keras.Input((6,))
    return Penalty(inputs, layers.Dense(3)(layers.Dense(8, activation="tanh")(inputs)))


def test_a_step_that_differentiates_a_gradient() -> None:
    def trained(strategy: Any) -> np.ndarray:
        model = build(strategy, penalty, lambda: keras.optimizers.SGD(0.1), metrics=None)
        for _ in range(2):
            model.train_on_batch(VECTORS, labels(ROWS))
        return np.concatenate([one.ravel() for one in model.get_weights()])

    expected = trained(tfdist.OneDeviceStrategy("CPU:0"))
    for schedule in ("1f1b", "gpipe"):
        found = trained(STRATEGY(DEVICES[:2], micro_batches=3, schedule=schedule))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_files_go_to_plain_keras_and_back(folder: Path) -> None:
    def strategy() -> Any:
        return STRATEGY(DEVICES[:3], micro_batches=4)

    model = build(strategy(), mlp)
    fit(model)
    expected = model.predict(VECTORS, verbose=0)
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    plain = keras.models.load_model(folder / "model.keras")
    np.testing.assert_allclose(plain.predict(VECTORS, verbose=0), expected, atol=1e-6)
    with strategy().scope():
        back = keras.models.load_model(folder / "model.keras")
    other = build(strategy(), mlp)
    other.load_weights(folder / "model.weights.h5", skip_mismatch=True)  # it has no optimizer yet
    np.testing.assert_allclose(other.predict(VECTORS, verbose=0), expected, atol=1e-6)
    histories = [fit(one).history["loss"] for one in (plain, back)]
    np.testing.assert_allclose(histories[1], histories[0], rtol=2e-6)
    assert {v.value.device[-1] for v in back.trainable_variables} == {"1", "2", "3"}


def test_a_checkpoint_is_gone_on_from_exactly(folder: Path) -> None:
    def train(epochs: int, where: Path) -> np.ndarray:
        model = build(STRATEGY(DEVICES[:2], micro_batches=4))
        saves = tfdist.callbacks.Checkpoint(where)
        data = tf.data.Dataset.from_tensor_slices((VECTORS, labels(ROWS))).batch(10)
        model.fit(data, epochs=epochs, verbose=0, callbacks=[saves])
        return np.concatenate([one.ravel() for one in model.get_weights()])

    whole = train(3, folder / "whole")
    train(1, folder / "parts")
    np.testing.assert_array_equal(train(3, folder / "parts"), whole)


def test_the_summary_says_what_is_where() -> None:
    model = build(STRATEGY(DEVICES[:2], micro_batches=4, boundaries=["layer1"]), lambda: named(50, 3))
    text = model_strategy(model).summary(model, batch_size=20)
    first, second = text.splitlines()[1:3]
    # 6 x 50 + 50 float32; Adam has two slots and a sum of gradients is as large again.
    assert re.split(r"  +", first.strip())[:5] == ["0", "CPU:1", "layer0", "1,400", "4,200"], text
    # Five rows of 50 float32, of two micro-batches in flight.
    assert re.split(r"  +", first.strip())[5:] == ["2,000", "2"], text
    assert re.split(r"  +", second.strip()) == ["1", "CPU:2", "layer1", "612", "1,836", "60", "1"], text


def model_strategy(model: keras.Model) -> Any:
    return model._distribute_strategy


REFUSED: list[tuple[str, Any]] = [
    ("nothing to cut", lambda: STRATEGY(["CPU:1"], micro_batches=2)),
    ("device for each stage", lambda: STRATEGY("CPU:1", micro_batches=2)),
    ("set_logical_device_configuration", lambda: STRATEGY(["CPU:1", "CPU:9"], micro_batches=2)),
    ("devices such as", lambda: STRATEGY(["CPU:1", "a device"], micro_batches=2)),
    ("device of its own", lambda: STRATEGY(["CPU:1", "CPU:1"], micro_batches=2)),
    ("micro_batches as an int", lambda: STRATEGY(DEVICES, micro_batches=0)),
    ("list of layers' names", lambda: STRATEGY(DEVICES[:2], micro_batches=2, boundaries="layer1")),
    ("at least two devices", lambda: STRATEGY([None, "CPU:1"], micro_batches=2)),
    ("behind the model's first layer", lambda: cut_at("layer0")),
    ("made under `with strategy.scope():`", lambda: STRATEGY(DEVICES[:2], micro_batches=2).summary(named(4, 3))),
    ("record_times=True", lambda: STRATEGY(DEVICES[:2], micro_batches=2).timeline()),
    ("equal lengths", lambda: STRATEGY([DEVICES[:2], DEVICES[2:3]], micro_batches=4)),
    ("schedule to be one of", lambda: STRATEGY(DEVICES, micro_batches=2, schedule="zigzag")),
    ("names of the model's layers, layer0", lambda: cut_at("layer7")),
    ("in the order in which", lambda: cut_at("layer2", "layer1")),
    ("2 names for 3 devices", lambda: cut_at("layer1", stages=3)),
    ("at least 4 of them", lambda: build(STRATEGY(DEVICES, micro_batches=2), lambda: named(4, 3))),
    ("Sequential or functional model", lambda: build(STRATEGY(DEVICES, micro_batches=2), Own)),
    ("XLA", lambda: fit(build(STRATEGY(DEVICES[:2], micro_batches=2), jit_compile=True))),
    ("must be on its devices first", lambda: built_too_early()),
]


class Own(keras.Model):
    """Python code between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


def cut_at(*boundaries: str, stages: int = 0) -> keras.Model:
    devices = DEVICES[: stages or len(boundaries) + 1]
    return build(STRATEGY(devices, micro_batches=2, boundaries=boundaries), lambda: named(4, 5, 6, 3))


def built_too_early() -> None:
    strategy = STRATEGY(DEVICES[:2], micro_batches=2)
    with strategy.scope():
        optimizer = keras.optimizers.SGD(momentum=0.9)
        model = mlp()
        optimizer.build(model.trainable_variables)
        compiled(model, optimizer)


def test_what_cannot_work_is_refused() -> None:
    for expected, make in REFUSED:
        try:
            make()
        except (TypeError, ValueError) as error:
            assert expected in str(error), f"{expected!r} is not in: {error}"
            assert "Received" in str(error), error
        else:
            raise AssertionError(f"not refused: {expected}")


def test_a_model_without_input_is_cut_when_it_is_built() -> None:
    strategy = STRATEGY(DEVICES[:2], micro_batches=2)
    model = build(strategy, lambda: keras.Sequential([layers.Dense(8), layers.Dense(3)]), "adam")
    fit(model)
    devices = [v.value.device[-5:] for v in [*model.trainable_variables, *model.optimizer.variables[2:]]]
    assert devices == [*["CPU:1"] * 2, *["CPU:2"] * 2, *["CPU:1"] * 4, *["CPU:2"] * 4], devices


def run_tests(defined: dict[str, Any]) -> None:
    """Those of a program that its command line names, or all."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 5)
    folder, *names = sys.argv[1:]
    tests = {name: value for name, value in defined.items() if name.startswith("test_")}
    for name in names or tests:
        test = tests[name]
        test(Path(folder)) if inspect.signature(test).parameters else test()
        print(name, "done", flush=True)


if __name__ == "__main__":
    run_tests(globals())
