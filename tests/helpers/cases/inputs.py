"""Everything that `fit`, `evaluate` and `predict` take as data."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.cases import case, variants
from tests.helpers.setups import Setup, batches, compiled, features, labels, report


def momentum() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(0.1, momentum=0.9)


def fit_arrays(rows: int) -> Any:
    def run(setup: Setup) -> dict[str, Any]:
        model = setup.classifier(momentum)
        x, y = features(rows), labels(rows)
        history = model.fit(x, y, batch_size=16, epochs=2, verbose=0)
        return report(
            model,
            history,
            evaluate=model.evaluate(x, y, batch_size=16, verbose=0),
            predict=model.predict(x, batch_size=16, verbose=0),
        )

    return run


variants(
    fit_arrays,
    {
        "arrays_divisible": (48,),
        "arrays_last_batch_of_1": (49,),
        "arrays_last_batch_of_2": (50,),
        "arrays_last_batch_odd": (55,),
        "arrays_last_batch_of_15": (47,),
    },
)


@case()
def tf_data_finite(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    data = batches(53, 10)
    history = model.fit(data, epochs=2, verbose=0, validation_data=batches(21, 10))
    return report(model, history, predict=model.predict(data, verbose=0))


@case()
def tfrecords(setup: Setup) -> dict[str, Any]:
    """Shuffled globally for training; in the order of the files for `predict`."""
    with setup.scope():
        train = tfdist.data.digits("test", batch_size=50, shuffle=True, seed=4)
        held_out = tfdist.data.digits("test", batch_size=100)
        layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
        model = compiled(keras.Sequential(layers), momentum)
    history = model.fit(train, epochs=2, verbose=0, validation_data=held_out)
    return report(model, history, predict=model.predict(held_out.map(lambda x, y: x), verbose=0))


@case()
def tf_data_infinite(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    history = model.fit(batches(53, 10).repeat(), epochs=2, steps_per_epoch=7, verbose=0)
    return report(model, history)


@case()
def tf_data_unknown_size(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    data = batches(53, 10).filter(lambda x, y: True)
    assert data.cardinality() == tf.data.UNKNOWN_CARDINALITY
    return report(model, model.fit(data, epochs=2, verbose=0), evaluate=model.evaluate(data, verbose=0))


@case()
def tf_data_shuffled(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    data = batches(53, 1).unbatch().shuffle(53, seed=3).batch(10)
    return report(model, model.fit(data, epochs=2, verbose=0))


@case()
def arrays_shuffled(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    keras.utils.set_random_seed(11)
    return report(model, model.fit(features(53), labels(53), batch_size=10, epochs=2, shuffle=True, verbose=0))


class Tens(keras.utils.PyDataset):
    """Fifty-three rows, ten at a time."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        rows = slice(10 * index, 10 * index + 10)
        return features(53)[rows], labels(53)[rows]


@case()
def py_dataset(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    history = model.fit(Tens(), epochs=2, shuffle=False, verbose=0)
    return report(model, history, predict=model.predict(Tens(), verbose=0))


@case()
def generator(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)

    def endless() -> Any:
        while True:
            yield from (Tens()[index] for index in range(6))

    return report(model, model.fit(endless(), epochs=2, steps_per_epoch=5, verbose=0))


@case()
def dictionary_with_strings(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        numbers, words = keras.Input((6,), name="numbers"), keras.Input((1,), dtype="string", name="words")
        codes = keras.layers.StringLookup(vocabulary=["x", "y"])(words)
        embedded = keras.layers.Flatten()(keras.layers.Embedding(3, 4)(codes))
        both = keras.layers.Concatenate()([numbers, embedded])
        model = keras.Model({"numbers": numbers, "words": words}, keras.layers.Dense(3)(both))
        compiled(model, "adam")
    words = np.resize(np.array([["x"], ["y"], ["z"]]), (53, 1))
    data = tf.data.Dataset.from_tensor_slices(({"numbers": features(53), "words": words}, labels(53))).batch(10)
    return report(model, model.fit(data, epochs=2, verbose=0), predict=model.predict(data, verbose=0))


@case()
def nested_tuple(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        left, right = keras.Input((6,)), keras.Input((2,))
        output = keras.layers.Dense(3)(keras.layers.Concatenate()([left, right]))
        model = compiled(keras.Model((left, right), output))
    x = (features(53), features(53)[:, :2])
    history = model.fit(x, labels(53), batch_size=10, epochs=2, shuffle=False, verbose=0)
    return report(model, history, predict=model.predict(x, batch_size=10, verbose=0))


class MeanOfRagged(keras.Model):
    """Classifies rows of any number of values by their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        return self.dense(tf.expand_dims(tf.reduce_mean(inputs.with_values(inputs.values), axis=1), 1))


@case()
def ragged(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        model = MeanOfRagged()
        model.dense.build((None, 1))
        compiled(model)
    rows = tf.RaggedTensor.from_row_lengths(
        features(53).ravel()[: sum(1 + i % 5 for i in range(53))], [1 + i % 5 for i in range(53)]
    )
    data = tf.data.Dataset.from_tensor_slices((rows, labels(53))).batch(10)
    return report(model, model.fit(data, epochs=2, verbose=0))


@case()
def sample_weight(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum, weighted_metrics=["accuracy"])
    history = model.fit(
        features(53),
        labels(53),
        sample_weight=np.linspace(0.1, 2, 53),
        batch_size=10,
        epochs=2,
        shuffle=False,
        verbose=0,
        validation_data=(features(13), labels(13), np.linspace(1, 3, 13)),
    )
    return report(model, history)


@case()
def class_weight(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    return report(model, model.fit(batches(53, 10), class_weight={0: 0.2, 1: 1.0, 2: 3.0}, epochs=2, verbose=0))


@case()
def validation_split(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    history = model.fit(features(53), labels(53), batch_size=10, epochs=2, validation_split=0.3, verbose=0)
    return report(model, history)


class Reconstruct(keras.Model):
    """Learns to return its input; there are no labels."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(6)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **_: Any
    ) -> Any:
        return keras.ops.mean((y_pred - x) ** 2)


@case()
def x_only(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        model = Reconstruct()
        model.compile("sgd")
    data = tf.data.Dataset.from_tensor_slices(features(53)).batch(10)
    return report(model, model.fit(data, epochs=2, verbose=0))


@case()
def no_sample_weight(setup: Setup) -> dict[str, Any]:
    """Datasets of (x, y, None)."""
    model = setup.classifier(momentum)
    data = batches(53, 10).map(lambda x, y: (x, y, None))
    return report(model, model.fit(data, epochs=2, verbose=0), predict=model.predict(data, verbose=0))


@case()
def ragged_one_batch(setup: Setup) -> dict[str, Any]:
    with setup.scope():
        model = MeanOfRagged()
        model.dense.build((None, 1))
        compiled(model)
    rows = tf.RaggedTensor.from_row_lengths(features(5).ravel(), [1, 7, 2, 10, 10])
    return report(model, logs=[model.train_on_batch(rows, labels(5)) for _ in range(2)])
