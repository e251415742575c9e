"""Training code of the user's own: subclassed models, train_step, compute_loss and custom loops."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.helpers.cases import case
from tests.helpers.setups import Setup, batches, compiled, features, labels, report, weights


class Subclassed(keras.Model):
    """Built by its first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="tanh")
        self.head = keras.layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        return self.head(self.hidden(inputs))


@case()
def subclassed(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        model = compiled(Subclassed(), "adam")
    history = model.fit(batches(53, 10), epochs=2, verbose=0)
    return report(model, history, predict=model.predict(features(53), verbose=0))


class OwnStep(Subclassed):
    """Keras' guide to custom training steps, with `compute_loss`."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


@case()
def own_train_step(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        model = compiled(OwnStep(), lambda: keras.optimizers.Adam(0.02, global_clipnorm=0.1))
    return report(model, model.fit(batches(53, 10), epochs=2, verbose=0))


class OwnLosses(Subclassed):
    """Plain means, two optimizers and logs that are no metrics, as in a script written for one device."""

    def compile(self, **options: Any) -> None:
        super().compile(**options)
        self.head_optimizer = keras.optimizers.Adam(0.01)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            logits = self(x, training=True)
            fit = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))
            size = keras.ops.mean(keras.ops.square(logits))
            loss = fit + 0.1 * size
        hidden, head = self.hidden.trainable_variables, self.head.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, hidden), hidden, strict=True))
        self.head_optimizer.apply_gradients(zip(tape.gradient(loss, head), head, strict=True))
        return {"fit": fit, "size": size}


@case()
def own_losses_and_two_optimizers(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        model = OwnLosses()
        model(features(2))
        model.compile(optimizer=keras.optimizers.SGD(0.1))
        model.head_optimizer.build(model.head.trainable_variables)
        model.optimizer.build(model.hidden.trainable_variables)
    return report(model, model.fit(batches(53, 10), epochs=2, verbose=0))


@case()
def custom_loop(setup: Setup) -> dict[str, Any]:
    """tf.distribute's own idiom: a Keras loss object, `strategy.run`, gradients summed by the optimizer."""
    model = setup.classifier(lambda: keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.2))
    strategy = setup.strategy or tf.distribute.get_strategy()
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_function(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    with setup.scope():
        model.optimizer.build(model.trainable_variables)

    @tf.function
    def train(x: Any, y: Any) -> Any:
        return strategy.reduce("SUM", strategy.run(step, args=(x, y)), axis=None)

    data = strategy.experimental_distribute_dataset(batches(53, 10))
    losses = [float(train(x, y)) for _ in range(2) for x, y in data]
    return {"weights": weights(model), "losses": np.asarray(losses)}


@case()
def custom_loop_scaled_by_hand(setup: Setup) -> dict[str, Any]:
    """Per-example losses and `tf.nn.compute_average_loss` with the global batch size: nothing is scaled twice."""
    model = setup.classifier()
    strategy = setup.strategy or tf.distribute.get_strategy()

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            by_row = keras.losses.sparse_categorical_crossentropy(y, model(x, training=True), from_logits=True)
            loss = tf.nn.compute_average_loss(by_row, global_batch_size=10)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    with setup.scope():
        model.optimizer.build(model.trainable_variables)
    train = tf.function(lambda x, y: strategy.run(step, args=(x, y)))
    for x, y in strategy.experimental_distribute_dataset(batches(53, 10)):
        train(x, y)
    return report(model)


class RawLogs(Subclassed):
    """Returns its loss as it is, beside other numbers and a metric's result under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.hits = keras.metrics.SparseCategoricalAccuracy(name="hits")

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self.hits.update_state(y, y_pred)
        return {"loss": loss, "rate": 0.25, "share": self.hits.result()}


@case()
def raw_logs(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        model = compiled(RawLogs(), metrics=None)
    return report(model, model.fit(batches(53, 10), epochs=2, verbose=0))


class LossInFunction(Subclassed):
    """Computes its loss in a function of its own, and its step is one as well."""

    @tf.function
    def loss_of(self, x: Any, y: Any) -> Any:
        return self.compute_loss(y=y, y_pred=self(x, training=True))

    @tf.function
    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.loss_of(x, y)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        if loss > 1000.0:  # AutoGraph's
            loss = loss * 2.0
        return {"value": loss}


@case()
def functions_inside_the_step(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        model = LossInFunction()
        model(features(2))
        compiled(model, metrics=None)
    return report(model, model.fit(batches(53, 10), epochs=2, verbose=0))


class WithoutCall(keras.Model):
    """Two parts and a train step, as generative models have it; there is nothing to call."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
        self.decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6)])
        self.total = keras.metrics.Mean(name="total_loss")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.total]

    def train_step(self, x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(x - self.decoder(self.encoder(x))))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.total.update_state(loss)
        return {"loss": self.total.result()}


@case()
def model_without_call(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        model = WithoutCall()
        model.compile(optimizer=keras.optimizers.Adam(0.02))
    data = tf.data.Dataset.from_tensor_slices(features(53)).batch(10)
    return report(model, model.fit(data, epochs=2, verbose=0))


@case()
def predict_any_number_of_rows(setup: Setup) -> dict[str, Any]:
    """Predictions of an uneven number of rows come back once each and in order."""
    model = setup.classifier()
    return {
        "weights": weights(model),
        **{f"predict {rows}": model.predict(features(rows), batch_size=7, verbose=0) for rows in (1, 6, 8, 29)},
        "evaluate": model.evaluate(features(29), labels(29), batch_size=7, verbose=0),
    }
