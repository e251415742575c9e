"""Losses, their reductions, masks, regularizers and metrics."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tests.helpers.cases import case, variants
from tests.helpers.setups import Setup, batches, compiled, features, labels, report


def reduced(reduction: str | None, weighted: bool = True) -> Any:
    def run(setup: Setup) -> dict[str, Any]:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
        model = setup.classifier(lambda: keras.optimizers.SGD(0.01), loss=loss)
        rows = 53 if reduction else 48
        weight = np.linspace(0.1, 2, rows) if weighted else None
        history = model.fit(
            features(rows), labels(rows), sample_weight=weight, batch_size=12, epochs=2, shuffle=False, verbose=0
        )
        return report(model, history)

    return run


variants(
    reduced,
    {
        "reduction_sum_over_batch_size": ("sum_over_batch_size",),
        "reduction_mean": ("mean",),
        "reduction_mean_with_sample_weight": ("mean_with_sample_weight",),
        "reduction_sum": ("sum",),
        "reduction_sum_unweighted": ("sum", False),
        "reduction_none": (None,),
    },
)


@case()
def reduction_none_ragged_weights(setup: Setup) -> dict[str, Any]:
    """An unreduced loss over unequal slices; its logged mean is Keras' own affair, the weights are exact."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    model = setup.classifier(lambda: keras.optimizers.SGD(0.01), loss=loss)
    model.fit(batches(53, 10), epochs=2, verbose=0)
    return report(model)


def squared_by_row(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.sum((keras.ops.one_hot(keras.ops.cast(y_true[:, 0], "int32"), 3) - y_pred) ** 2, axis=-1)


def squared_mean(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(squared_by_row(y_true, y_pred))


def squared_of_some_rows(y_true: Any, y_pred: Any) -> Any:
    """Only rows of class 1 and 2, so replicas average over unequal numbers."""
    import tensorflow as tf

    return tf.boolean_mask(squared_by_row(y_true, y_pred), y_true[:, 0] > 0)


def custom(loss: Any) -> Any:
    def run(setup: Setup) -> dict[str, Any]:
        model = setup.classifier("sgd", loss=loss, metrics=[])
        y = labels(53)[:, np.newaxis]
        return report(model, model.fit(features(53), y, batch_size=10, epochs=2, shuffle=False, verbose=0))

    return run


variants(
    custom,
    {
        "custom_loss_by_row": (squared_by_row,),
        "custom_loss_scalar": (squared_mean,),
        "custom_loss_of_some_rows": (squared_of_some_rows,),
    },
)


@case()
def multi_output(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        inputs = keras.Input((6,))
        hidden = keras.layers.Dense(8, activation="tanh")(inputs)
        outputs = {"kind": keras.layers.Dense(3)(hidden), "size": keras.layers.Dense(1)(hidden)}
        model = keras.Model(inputs, outputs)
        model.compile(
            "sgd",
            {"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"},
            loss_weights={"kind": 0.5, "size": 2.0},
            metrics={"kind": ["accuracy"], "size": ["mae"]},
        )
    y = {"kind": labels(53), "size": features(53)[:, :1]}
    history = model.fit(features(53), y, batch_size=10, epochs=2, shuffle=False, verbose=0)
    prediction = model.predict(features(53), batch_size=10, verbose=0)
    return report(model, history, kind=prediction["kind"], size=prediction["size"])


@case()
def regularizers(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        dense = keras.layers.Dense(
            8,
            activation="tanh",
            kernel_regularizer=keras.regularizers.L1L2(0.01, 0.02),
            bias_regularizer="l2",
            activity_regularizer=keras.regularizers.L2(0.05),
        )
        model = compiled(keras.Sequential([keras.Input((6,)), dense, keras.layers.Dense(3)]))
    history = model.fit(batches(53, 10), epochs=2, verbose=0)
    return report(model, history, evaluate=model.evaluate(batches(53, 10), verbose=0))


class WithAddedLoss(keras.layers.Layer):
    """Adds the mean square of what passes through."""

    def call(self, inputs: Any) -> Any:
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


@case()
def add_loss(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        layers = [keras.Input((6,)), keras.layers.Dense(8), WithAddedLoss(), keras.layers.Dense(3)]
        model = compiled(keras.Sequential(layers))
    return report(model, model.fit(batches(53, 10), epochs=2, verbose=0))


@case()
def masked_sequences(setup: Setup) -> dict[str, Any]:
    """Token losses under a mask: every replica has another number of valid tokens."""
    with setup.scope():
        ids = keras.Input((5,), dtype="int32")
        hidden = keras.layers.Embedding(12, 4, mask_zero=True)(ids)
        hidden = keras.layers.LSTM(4, return_sequences=True)(hidden)
        model = compiled(keras.Model(ids, keras.layers.Dense(3)(hidden)), "sgd")
    random = np.random.RandomState(3)
    x = random.randint(1, 12, (53, 5))
    for row, length in enumerate(random.randint(1, 6, 53)):
        x[row, length:] = 0
    y = random.randint(0, 3, (53, 5))
    history = model.fit(x, y, batch_size=10, epochs=2, shuffle=False, verbose=0)
    return report(model, history)


class RowsSeen(keras.metrics.Metric):
    """A metric of the user's own."""

    def __init__(self, name: str = "rows_seen") -> None:
        super().__init__(name=name)
        self.rows = self.add_weight(name="rows", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.rows.assign_add(keras.ops.cast(keras.ops.shape(y_pred)[0], "float32"))

    def result(self) -> Any:
        return self.rows


@case()
def metrics(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, activation="sigmoid")])
        model.compile(
            "sgd",
            "binary_crossentropy",
            metrics=["accuracy", keras.metrics.AUC(), keras.metrics.Precision(), "mae", RowsSeen()],
        )
    y = (labels(53) > 1).astype("float32")[:, np.newaxis]
    history = model.fit(
        features(53), y, batch_size=10, epochs=2, shuffle=False, verbose=0, validation_data=(features(7), y[:7])
    )
    evaluated = model.evaluate(features(53), y, batch_size=10, verbose=0)
    return report(model, history, evaluate=evaluated, on_batch=model.test_on_batch(features(9), y[:9]))


@case()
def logs_of_every_batch(setup: Setup) -> dict[str, Any]:
    model = setup.classifier()
    seen: list[list[float]] = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append([logs["loss"], logs["accuracy"]])
    )
    model.fit(batches(53, 10), epochs=1, verbose=0, callbacks=[watch])
    return report(model, logs=np.asarray(seen))
