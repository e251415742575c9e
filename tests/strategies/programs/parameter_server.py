"""Two workers and two parameter servers train, evaluate and predict; run as `python -m … FILE [CHECK ...]`.

Keeps {check: {name: value} or {"error": traceback}} as a pickle. A process can connect to one cluster only, so all
checks share it. Where numbers must be exact whatever the workers' order, the gradient is the same in every step: one
weight, inputs 1 and the prediction as the loss, so that N steps of SGD move it by N times the learning rate.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.setups import Setup, batches, features, labels
from tfdist._compat import hooks

#: A power of two, so that sums of it are exact.
RATE = 0.5
#: How much of a moving average a step replaces; a power of two, so small that steps hardly change what others read.
SHARE = 2.0**-13


class Largest(keras.metrics.Metric):
    """The largest prediction, which no sum over batches gives."""

    def __init__(self, name: str = "largest", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.largest = self.add_weight(shape=(), initializer=lambda shape, dtype: tf.fill(shape, -1e30), name="largest")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.largest.assign(tf.maximum(self.largest.value, tf.reduce_max(y_pred)))

    def result(self) -> Any:
        return self.largest.value


class Slow(keras.layers.Layer):
    """Returns its inputs, which are ones, late: other steps run while something read before waits for them."""

    def call(self, inputs: Any) -> Any:
        square = tf.fill([384, 384], tf.reduce_max(inputs))
        return inputs * tf.minimum(tf.reduce_sum(tf.matmul(square, square)), 1.0)


class Counter(keras.layers.Layer):
    """Counts the steps in which it's trained, by `assign_add` of what is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            self.count.assign_add(tf.reduce_max(inputs))
        return inputs


class Meeting(keras.layers.Layer):
    """Each training step waits until another one is under way, for 2 s at most; counts those that met one."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.ended, self.met = (
            self.add_weight(shape=(), initializer="zeros", trainable=False, name=name)
            for name in ("begun", "ended", "met")
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        self.begun.assign_add(1.0)
        deadline = tf.timestamp() + 2.0
        others = tf.while_loop(
            lambda others: tf.logical_and(others < 1, tf.timestamp() < deadline),
            lambda _: (self.begun.value - self.ended.value - 1,),
            (tf.constant(0.0),),
        )[0]
        self.met.assign_add(tf.cast(others >= 1, tf.float32))
        self.ended.assign_add(1.0)
        return inputs


class SlowOnFirst(keras.layers.Layer):
    """Takes 25 times as long on the first of two workers, and counts each one's steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = self.add_weight(shape=(2,), initializer="zeros", trainable=False)

    def call(self, inputs: Any, training: bool = False) -> Any:
        step = hooks.current_step()
        if not training or step is None:
            return inputs
        self.steps.assign_add(tf.one_hot(step.seed_offset, 2))
        end = tf.timestamp() + tf.where(tf.equal(step.seed_offset, 0), tf.constant(0.5, tf.float64), 0.02)
        waited = tf.while_loop(lambda _: tf.timestamp() < end, lambda i: (i + 1,), (tf.constant(0),))
        with tf.control_dependencies(waited):
            return tf.identity(inputs)


class Interrupted(Exception):
    """What a callback raises."""


class InterruptAt(keras.callbacks.Callback):
    """Raises after a batch."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == self.batch:
            raise Interrupted


class Batches(keras.callbacks.Callback):
    """Notes which batches were begun and ended, and iterations as an epoch ends."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.iterations: list[int] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begun.append(batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ended.append(batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.iterations.append(int(self.model.optimizer.iterations))


def binary(scope: Any, optimizer: Any = "sgd") -> keras.Model:
    """Six features, one probability, metrics that are sums and one that isn't."""
    keras.utils.set_random_seed(7)
    with scope.scope():
        model = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1, activation="sigmoid")]
        )
        metrics = ["accuracy", keras.metrics.AUC(name="auc"), Largest()]
        made = optimizer() if callable(optimizer) else optimizer
        model.compile(made, "binary_crossentropy", metrics=metrics, weighted_metrics=[keras.metrics.MeanSquaredError()])
    return model


def line(scope: Any, *layers: keras.layers.Layer, rate: Any = RATE, **compile_options: Any) -> keras.Model:
    """One weight, at first 0, whose gradient is the mean of the inputs, times the rows' weights."""
    with scope.scope():
        model = keras.Sequential(
            [keras.Input((1,)), *layers, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="line")]
        )
        model.compile(keras.optimizers.SGD(rate), lambda _, predicted: predicted, **compile_options)
    return model


def slope(model: keras.Model) -> float:
    return float(model.get_layer("line").kernel.numpy()[0, 0])


def ones(steps: int, rows: int = 4) -> tf.data.Dataset:
    """Batches of (1, 0)."""
    return tf.data.Dataset.from_tensors((tf.ones([rows, 1]), tf.zeros([rows, 1]))).repeat(steps)


def binary_batches(rows: int, batch_size: int) -> tf.data.Dataset:
    return batches(rows, batch_size).map(lambda x, y: (x, tf.cast(y > 0, tf.float32)[:, None]))


def twin(model: keras.Model) -> keras.Model:
    """The same weights on one device."""
    alone = binary(Setup(None))
    alone.set_weights(model.get_weights())
    return alone


def fits(setup: Setup) -> dict[str, Any]:
    """Two fits of one model, of 24 steps an epoch."""
    model, seen = setup.classifier(lambda: keras.optimizers.Adam(0.01)), Batches()
    first = model.fit(batches(240, 10), epochs=3, verbose=0, callbacks=[seen])
    second = model.fit(batches(240, 10), epochs=2, verbose=0, callbacks=[seen], validation_data=batches(53, 10))
    return {
        "epochs": first.epoch,
        "history": {name: len(values) for name, values in first.history.items()},
        "second history": {name: len(values) for name, values in second.history.items()},
        "losses": first.history["loss"] + second.history["loss"],
        "iterations": seen.iterations,
        "begun": seen.begun,
        "ended": seen.ended,
        "last val_loss": second.history["val_loss"][-1],
        "evaluated": model.evaluate(batches(53, 10), verbose=0, return_dict=True)["loss"],
    }


def every_gradient_counts(setup: Setup) -> dict[str, Any]:
    """100 steps on constant gradients."""
    model = line(setup)
    model.fit(ones(50), epochs=2, verbose=0)
    return {"slope": slope(model), "iterations": int(model.optimizer.iterations)}


def steps_meet(setup: Setup) -> dict[str, Any]:
    """How many of 8 steps saw another one under way, for data that workers read and for data that is fed."""
    result = {}
    for name, data in {"read by workers": ones(8), "fed": generated(8)}.items():
        with setup.scope():
            meeting = Meeting()
        line(setup, meeting).fit(data, verbose=0)
        result[name] = float(meeting.met.numpy())
    return result


def overtakes(setup: Setup) -> dict[str, Any]:
    """Steps of each of two workers, of which the first is slow."""
    with setup.scope():
        slow = SlowOnFirst()
    line(setup, slow).fit(ones(80), verbose=0)
    return {"steps": slow.steps.numpy().tolist()}


def evaluates(setup: Setup) -> dict[str, Any]:
    """A trained model on 53 rows, also weighted and from arrays, and the same weights on one device."""
    model = binary(setup, lambda: keras.optimizers.Adam(0.05))
    model.fit(binary_batches(120, 10), epochs=1, verbose=0)
    alone, result = twin(model), {}
    x, y, weight = features(53), (labels(53) > 0).astype("float32")[:, None], np.arange(53) / 53
    for name, data in {
        "dataset": {"x": binary_batches(53, 10)},
        "arrays": {"x": x, "y": y, "batch_size": 7},
        "weighted": {"x": x, "y": y, "batch_size": 7, "sample_weight": weight},
        "two steps": {"x": binary_batches(53, 10).repeat(), "steps": 2},
    }.items():
        found, expected = (one.evaluate(**data, verbose=0, return_dict=True) for one in (model, alone))
        result[name] = found, expected
    return result


def training_metrics(setup: Setup) -> dict[str, Any]:
    """Of a fit that changes no weight, and of a one-device evaluate, for which the data is the same."""
    result = {}
    for steps_per_execution in (1, 4):
        model = binary(setup, lambda: keras.optimizers.SGD(0.0))
        model.steps_per_execution = steps_per_execution
        history = model.fit(binary_batches(93, 10), epochs=2, verbose=0).history
        expected = twin(model).evaluate(binary_batches(93, 10), verbose=0, return_dict=True)
        result[steps_per_execution] = history, expected
    return result


def predicts(setup: Setup) -> dict[str, Any]:
    """Rows whose prediction tells them apart, in order, from all kinds of input."""
    model = binary(setup)
    alone, result = twin(model), {}
    rows = features(93)
    for name, steps_per_execution, options in (
        ("arrays", 1, {"x": rows, "batch_size": 10}),
        ("dataset", 1, {"x": tf.data.Dataset.from_tensor_slices(rows).batch(10)}),
        ("executions of 4", 4, {"x": rows, "batch_size": 10}),
        ("two steps", 1, {"x": tf.data.Dataset.from_tensor_slices(rows).batch(10).repeat(), "steps": 2}),
        ("again", 1, {"x": rows, "batch_size": 31}),
    ):
        model.steps_per_execution = steps_per_execution
        model.predict_function = None
        result[name] = model.predict(**options, verbose=0), alone.predict(**options, verbose=0)
    return result


def state_of_layers(setup: Setup) -> dict[str, Any]:
    """What layers change without gradients, in 80 steps in executions of 1 and of 4."""
    return {steps: state_of_layers_in(setup, steps) for steps in (1, 4)}


def state_of_layers_in(setup: Setup, steps_per_execution: int) -> dict[str, Any]:
    with setup.scope():
        counter, normal = Counter(), keras.layers.BatchNormalization(momentum=1 - SHARE)
        dropouts = keras.layers.Dropout(0.5, seed=3), keras.layers.Dropout(0.25, seed=4)
    model = line(setup, Slow(), counter, normal, *dropouts, steps_per_execution=steps_per_execution)
    draws = [-layer.seed_generator.state.numpy()[1] for layer in dropouts]
    model.fit(ones(40), epochs=2, verbose=0)
    model.evaluate(ones(5), verbose=0)
    with setup.scope():
        renormal = keras.layers.BatchNormalization(renorm=True, renorm_momentum=1 - SHARE)
    line(setup, Slow(), renormal, steps_per_execution=steps_per_execution).fit(ones(40), epochs=2, verbose=0)
    return {
        "renorm mean": float(renormal.renorm_mean.numpy()[0]),
        "count": float(counter.count.numpy()),
        "moving mean": float(normal.moving_mean.numpy()[0]),
        "moving variance": float(normal.moving_variance.numpy()[0]),
        "draws": [int(n + layer.seed_generator.state.numpy()[1]) for n, layer in zip(draws, dropouts, strict=True)],
    }


def schedule(setup: Setup) -> dict[str, Any]:
    """A rate that falls from 1 to 0 when 30 steps were made, by whichever workers, in 60 steps."""
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([29], [1.0, 0.0])
    model = line(setup, rate=rates)
    model.fit(ones(60), verbose=0)
    return {"slope": slope(model), "rate": float(model.optimizer.learning_rate)}


def callbacks(setup: Setup) -> dict[str, Any]:
    """Keras' own, in a fit whose loss doesn't change."""
    model = binary(setup, lambda: keras.optimizers.SGD(0.0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=4, min_delta=1.0)
        ours = [
            keras.callbacks.ModelCheckpoint(str(folder / "best.keras"), monitor="val_loss", save_best_only=True),
            keras.callbacks.ModelCheckpoint(str(folder / "epoch-{epoch}.weights.h5"), save_weights_only=True),
            keras.callbacks.ModelCheckpoint(str(folder / "{batch}.weights.h5"), save_freq=4, save_weights_only=True),
            keras.callbacks.TensorBoard(str(folder / "board"), update_freq=2),
            keras.callbacks.CSVLogger(str(folder / "log.csv")),
            keras.callbacks.TerminateOnNaN(),
            stop,
        ]
        history = model.fit(
            binary_batches(60, 10), epochs=9, verbose=0, callbacks=ours, validation_data=binary_batches(30, 10)
        )
        return {
            "epochs": len(history.epoch),
            "stopped": stop.stopped_epoch,
            "files": sorted(path.name for path in folder.iterdir()),
            "board": sorted(path.name for path in (folder / "board").iterdir()),
            "csv": (folder / "log.csv").read_text().splitlines(),
            "history": history.history,
            "saved": folder_predictions(folder, model),
        }


def folder_predictions(folder: Path, model: keras.Model) -> list[np.ndarray]:
    loaded = keras.models.load_model(folder / "best.keras", custom_objects={"Largest": Largest})
    return [one.predict(features(20), verbose=0) for one in (loaded, model)]


def rate_on_plateau(setup: Setup) -> dict[str, Any]:
    """The rate is halved after each epoch but the first; steps use what it is."""
    model = line(setup, rate=1.0)
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=1e9)
    history = model.fit(ones(8), epochs=3, verbose=0, callbacks=[plateau]).history
    return {"rates": [float(rate) for rate in history["learning_rate"]], "slope": slope(model)}


def generated(steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for _ in range(steps):
        yield np.ones([4, 1], "float32"), np.zeros([4, 1], "float32")


class Sequence(keras.utils.PyDataset):
    """Eleven batches."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> Any:
        return np.ones([4, 1], "float32"), np.zeros([4, 1], "float32")


def unknown_size() -> tf.data.Dataset:
    """Eleven batches, which nobody knows before they have come."""
    return ones(20).enumerate().filter(lambda index, _: index < 11).map(lambda _, batch: batch)


def amounts_of_data(setup: Setup) -> dict[str, Any]:
    """(weight, iterations by epoch, batches that ended) after fits on each kind of input, and so on one device."""
    return {
        f"{name}, {steps_per_execution} steps an execution": [
            amount_of_data(line(one, Slow(), steps_per_execution=steps_per_execution), data(), options)
            for one in (setup, Setup(None))
        ]
        for steps_per_execution in (1, 4)
        for name, data, options in (
            ("infinite", lambda: ones(-1), {"steps_per_epoch": 7, "epochs": 3}),
            ("unknown size", unknown_size, {"epochs": 3}),
            ("known size", lambda: ones(11), {"epochs": 3}),
            ("generator", lambda: generated(33), {"steps_per_epoch": 11, "epochs": 3}),
            ("generator of one epoch", lambda: generated(11), {}),
            ("sequence", Sequence, {"epochs": 3}),
        )
    }


def amount_of_data(model: keras.Model, data: Any, options: dict[str, Any]) -> tuple[float, list[int], list[int]]:
    seen = Batches()
    model.fit(data, verbose=0, callbacks=[seen], **options)
    return slope(model), seen.iterations, seen.ended


def weighted_rows(setup: Setup) -> dict[str, Any]:
    """Ten steps on batches of four rows, half of them of class 1."""
    x, y = np.ones([40, 1], "float32"), np.tile([0, 1], 20)
    weight = np.tile([0.5, 1.0, 1.5, 5.0], 10)
    result = {}
    for name, options in {
        "class_weight": {"class_weight": {0: 1.0, 1: 3.0}},
        "sample_weight": {"sample_weight": weight},
        "none": {},
    }.items():
        model = line(setup)
        model.fit(x, y, batch_size=4, verbose=0, **options)
        result[name] = slope(model)
    return result


def mixed_precision(setup: Setup) -> dict[str, Any]:
    """30 steps in float16 with a scaled loss."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = line(setup, rate=2.0**-5)
        model.fit(ones(30), verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = model.optimizer
    return {
        "optimizer": type(optimizer).__name__,
        "compute dtype": model.get_layer("line").compute_dtype,
        "variable dtype": str(model.get_layer("line").kernel.dtype),
        "slope": slope(model),
        "iterations": int(optimizer.inner_optimizer.iterations),
        "step counter": int(optimizer.step_counter.numpy()),
    }


class EvaluateAt(keras.callbacks.Callback):
    """Evaluates and predicts in the middle of an epoch."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self._batch = batch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == self._batch:
            self.model.evaluate(ones(5), verbose=0)
            self.model.predict(ones(3), verbose=0)


def evaluated_in_between(setup: Setup) -> dict[str, Any]:
    """A callback evaluates while executions are in flight."""
    model = line(setup, Slow())
    model.fit(ones(40), verbose=0, callbacks=[EvaluateAt(9)])
    return {"reported": setup.strategy.reported_steps, "iterations": int(model.optimizer.iterations)}


def interrupted(setup: Setup) -> dict[str, Any]:
    """A callback raises in the middle of an epoch; then an evaluate, and a fit of ten steps."""
    model = line(setup, Slow(), steps_per_execution=2)
    try:
        model.fit(ones(40), verbose=0, callbacks=[InterruptAt(9)])
        raised = False
    except Interrupted:
        raised = True
    loss = model.evaluate(ones(5), verbose=0)
    iterations, before = int(model.optimizer.iterations), slope(model)
    model.fit(ones(10), verbose=0)
    rated = binary(setup, lambda: keras.optimizers.SGD(0.0))
    try:
        rated.fit(binary_batches(240, 10), verbose=0, callbacks=[InterruptAt(5)])
    except Interrupted:
        history = rated.fit(binary_batches(53, 10), verbose=0).history
    return {
        "raised": raised,
        "iterations": iterations,
        "slope": before,
        "loss": loss,
        "later iterations": int(model.optimizer.iterations),
        "later slope": slope(model),
        "history": history,
        "expected": twin(rated).evaluate(binary_batches(53, 10), verbose=0, return_dict=True),
    }


def placement(setup: Setup) -> dict[str, Any]:
    """Bytes of variables on each ps, with those of Adam: of a first model, and of two."""
    with setup.scope():
        # By turns, kernels would lie on one ps and biases on the other.
        stack = keras.Sequential([keras.Input((256,)), *(keras.layers.Dense(256) for _ in range(8))])
        stack.compile("adam", "mse")
        stack.optimizer.build(stack.trainable_variables)
    of_stack = bytes_by_task([*stack.variables, *stack.optimizer.variables])
    with setup.scope():
        images = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=10)
        images.compile("adam", "mse")
        images.optimizer.build(images.trainable_variables)
    of_images = bytes_by_task([*images.variables, *images.optimizer.variables])
    return {"stack": of_stack, "both": [one + other for one, other in zip(of_stack, of_images, strict=True)]}


def bytes_by_task(variables: list[Any]) -> list[int]:
    found = [0, 0]
    for variable in variables:
        spec = tf.DeviceSpec.from_string(variable.value.device)
        assert spec.job == "ps", (variable.path, spec)
        found[spec.task] += int(np.prod(variable.shape)) * tf.as_dtype(variable.dtype).size
    return found


def refusals(setup: Setup) -> dict[str, Any]:
    """Messages of what can't work."""

    def message(call: Any) -> str:
        try:
            call()
        except ValueError as error:
            return str(error)
        return "nothing was raised"

    optimizer = keras.optimizers.Adam()
    with setup.scope():
        foreign_optimizer = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        foreign_optimizer.compile(optimizer, "mse")
        scaled = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        scaled.compile(keras.optimizers.LossScaleOptimizer(optimizer), "mse")
    outside = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    outside.compile("sgd", "mse")

    def fit_outside() -> None:
        with setup.scope():
            outside.fit(ones(2), verbose=0)

    found = {
        "optimizer": message(lambda: foreign_optimizer.fit(ones(2), verbose=0)),
        "inner optimizer": message(lambda: scaled.fit(ones(2), verbose=0)),
        "model": message(fit_outside),
    }
    model = line(setup)
    model.fit(ones(4), verbose=0)
    return {**found, "slope": slope(model)}


CHECKS = (
    fits,
    every_gradient_counts,
    steps_meet,
    overtakes,
    evaluates,
    training_metrics,
    predicts,
    state_of_layers,
    schedule,
    callbacks,
    rate_on_plateau,
    amounts_of_data,
    weighted_rows,
    mixed_precision,
    evaluated_in_between,
    interrupted,
    placement,
    refusals,
)


def main(output: Path, chosen: list[str]) -> None:
    """Run the checks that are named, or all."""
    with tfdist.cluster.local(workers=2, ps=2) as cluster:
        setup = Setup(tfdist.ParameterServerStrategy(cluster), "parameter_server")
        results: dict[str, Any] = {}
        for check in CHECKS:
            if chosen and check.__name__ not in chosen:
                continue
            try:
                results[check.__name__] = check(setup)
            except Exception:
                results[check.__name__] = {"error": traceback.format_exc()}
            print(check.__name__, results[check.__name__].get("error", "done"), flush=True)
        output.write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
