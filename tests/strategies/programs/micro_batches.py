"""Batches that are cut into micro-batches, on one device and on two replicas; one device without a strategy takes them
whole. Run as a program: `python -m tests.strategies.programs.micro_batches SETUP`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.helpers.cases.accumulation import OPTIMIZERS, cut, grouped
from tests.helpers.setups import Setup, compiled, features, labels, report
from tfdist.gradients import AccumulationOptions

#: Float32 rounding of gradients that were added up in another order.
TOLERANCE = 1e-6
#: 47 rows: pieces of unequal sizes, and a last batch with fewer rows than pieces.
SIZES = (10, 10, 10, 10, 5, 2)
SAMPLE_WEIGHT = np.random.RandomState(3).rand(47).astype("float32")


class AtMost(keras.layers.Layer):
    """Fails a step in which a replica has more rows at a time; None is no limit."""

    def __init__(self, rows: int | None) -> None:
        super().__init__()
        self._rows = rows

    def call(self, inputs: Any) -> Any:
        if self._rows is None:
            return inputs
        with tf.control_dependencies([tf.debugging.assert_less_equal(tf.shape(inputs)[0], self._rows)]):
            return tf.identity(inputs)


class OwnLogs(keras.Model):
    """A train step that returns a number of its own beside metrics: the mean label."""

    def train_step(self, data: Any) -> Any:
        return {**super().train_step(data), "label": tf.reduce_mean(tf.cast(data[1], tf.float32))}


def train(name: str, *, splits: int = 3, steps: int = 1, **compile_options: Any) -> Callable[[Setup], dict[str, Any]]:
    def run(setup: Setup) -> dict[str, Any]:
        limit = None if setup.is_reference else -(-max(SIZES) // (splits * setup.replicas))
        with setup.scope():
            inputs = keras.Input((6,))
            model = OwnLogs(inputs, keras.layers.Dense(3)(AtMost(limit)(inputs)))
            if setup.strategy is not None:
                setup.strategy.gradient_accumulation_steps = AccumulationOptions(steps, splits=splits)
            compiled(model, OPTIMIZERS[name], weighted_metrics=["accuracy"], **compile_options)
        data = cut(grouped(setup, SIZES, steps), features(47), labels(47), SAMPLE_WEIGHT)
        labels_seen: list[float] = []
        keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: labels_seen.append(logs["label"]))
        history = model.fit(data, epochs=2, verbose=0, callbacks=[keep])
        history.history.pop("label")  # Keras keeps the last batch's
        more = {} if steps > 1 or "steps_per_execution" in compile_options else {"labels": np.asarray(labels_seen)}
        return report(model, history, iterations=np.asarray(model.optimizer.iterations), **more)

    return run


CASES = {
    **{name: train(name) for name in ("adam", "global_clipnorm", "ema_overwrite", "loss_scale_optimizer")},
    "two batches to a step": train("nesterov", steps=2, splits=2),
    "more pieces than rows": train("nesterov", splits=7),
    "executions of four": train("adam", steps_per_execution=4),
    "eagerly": train("adam", run_eagerly=True),
}


def train_on_batch(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(OPTIMIZERS["adam"])
    logs = [model.train_on_batch(features(10), labels(10), return_dict=True)["loss"] for _ in range(3)]
    return report(model, loss=np.asarray(logs))


def check_that_statistics_outlive_empty_pieces(setup: Setup) -> None:
    with setup.scope():
        normalization = keras.layers.BatchNormalization()
        model = keras.Sequential([keras.Input((6,)), normalization, keras.layers.Dense(3)])
        if setup.strategy is not None:
            setup.strategy.gradient_accumulation_steps = AccumulationOptions(splits=7)
        compiled(model)
    model.fit(features(2), labels(2), batch_size=2, verbose=0)
    # One row has variance 0, two rows seldom 1: each piece with rows takes a hundredth away, and the others nothing.
    variance = keras.ops.convert_to_numpy(normalization.moving_variance)
    assert (variance > 0.97).all(), variance


#: Where replicas have to do with each other.
ON_REPLICAS = ("loss_scale_optimizer", "more pieces than rows", "executions of four")


def main(name: str) -> None:
    setup, one_device = Setup.named(name), Setup(None)
    for case, run in {**CASES, "train_on_batch": train_on_batch}.items():
        if setup.replicas > 1 and case not in ON_REPLICAS:
            continue
        found, expected = run(setup), run(one_device)
        assert found.keys() == expected.keys(), (case, found.keys(), expected.keys())
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=f"{case}: {key}")
        print(case, "done", flush=True)
    check_that_statistics_outlive_empty_pieces(setup)


if __name__ == "__main__":
    main(sys.argv[1])
