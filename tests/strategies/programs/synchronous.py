"""Fits under `tfdist.updates.Synchronous` without backup workers, and the same on one device, on whole global batches.

python -m tests.strategies.programs.synchronous OUTPUT
"""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tfdist.updates import DelayCompensated, Synchronous

WORKERS, PS, EPOCHS = 3, 2, 2
BATCH, TOKENS, WORDS = 8, 5, 23
#: 9 batches and one of 5 rows: it's alone in the last round.
ALONE = 77
#: 10 batches and one of 5 rows: two in the last round.
UNEVEN = 85

optimizers, layers = keras.optimizers, keras.layers
two_shards = tf.distribute.experimental.partitioners.MinSizePartitioner(min_shard_bytes=64, max_shards=2)


def adam() -> keras.optimizers.Optimizer:
    """With all that has to see the whole gradient, once."""
    rates = optimizers.schedules.PiecewiseConstantDecay([3, 5], [0.05, 0.02, 0.01])
    return optimizers.Adam(rates, global_clipnorm=0.3, weight_decay=0.1, use_ema=True, ema_momentum=0.5)


def dense() -> keras.Model:
    """Of the words' numbers themselves."""
    return keras.Sequential([keras.Input((TOKENS,)), layers.Dense(8, "tanh"), layers.Dense(1)])


def embedding(**options: Any) -> keras.Model:
    """A value a word."""
    table = layers.Embedding(WORDS, 4, **options)
    return keras.Sequential([keras.Input((TOKENS,), dtype="int32"), table, layers.Dense(1)])


def masked() -> keras.Model:
    """Padded words have none, so that losses are divided by what is left."""
    return embedding(mask_zero=True)


class TwoOptimizers(keras.Model):
    """Its parts are trained by an optimizer each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = layers.Dense(8, "tanh"), layers.Dense(1)
        self.other = optimizers.Adam(0.02, clipnorm=0.1)

    def call(self, inputs: Any) -> Any:
        return self.second(self.first(inputs))

    def train_step(self, data: Any) -> Any:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape(persistent=True) as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True), sample_weight=weight)
        for part, optimizer in ((self.first, self.optimizer), (self.second, self.other)):
            optimizer.apply(tape.gradient(loss, [one.value for one in part.trainable_weights]), part.trainable_weights)
        return {"loss": loss}


def two_optimizers() -> keras.Model:
    model = TwoOptimizers()
    model(tf.zeros([1, TOKENS]))
    model.other.build(model.second.trainable_weights)
    return model


@dataclass(frozen=True)
class Case:
    """What is trained, and how; `worker_batches` are what one optimizer step is of."""

    model: Callable[[], keras.Model] = dense
    optimizer: Callable[[], Any] = lambda: optimizers.SGD(0.1)
    rows: int = UNEVEN
    data: str = "graph"
    strategy: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    worker_batches: int = WORKERS

    @property
    def is_of_tokens(self) -> bool:
        return self.model in (embedding, masked)


CASES = {
    "sgd": Case(),
    "alone in the last round": Case(rows=ALONE),
    "adam": Case(optimizer=adam),
    "embedding": Case(embedding, lambda: optimizers.Adagrad(0.1)),
    "embedding, adam": Case(embedding, adam, ALONE),
    "masked": Case(masked, adam),
    "loss scale": Case(optimizer=lambda: optimizers.LossScaleOptimizer(adam())),
    "shards": Case(embedding, adam, strategy={"variable_partitioner": two_shards}),
    "dense shards": Case(optimizer=adam, strategy={"variable_partitioner": two_shards}),
    "fed by the chief": Case(optimizer=adam, strategy={"data": "feed"}),
    "arrays": Case(optimizer=adam, data="arrays"),
    "unknown size": Case(optimizer=adam, data="unknown"),
    "endless": Case(optimizer=adam, rows=6 * BATCH, data="endless", fit={"steps_per_epoch": 6}),
    "weights of rows": Case(optimizer=adam, data="weighted"),
    "two optimizers": Case(two_optimizers, lambda: optimizers.Adam(0.02, global_clipnorm=0.3, weight_decay=0.1)),
    "accumulated": Case(optimizer=adam, strategy={"gradient_accumulation_steps": 2}, worker_batches=2 * WORKERS),
    "accumulated, masked, fed": Case(
        masked,
        adam,
        strategy={"gradient_accumulation_steps": 2, "data": "feed"},
        worker_batches=2 * WORKERS,
    ),
}


def rows_of(case: Case, rows: int, seed: int = 1) -> tuple[np.ndarray, ...]:
    random = np.random.RandomState(seed)
    if case.is_of_tokens:
        words = random.randint(0, WORDS, (rows, TOKENS))
        words[:, 0] = np.maximum(words[:, 0], 1)  # no row without any
        return words.astype("int32"), random.randn(rows, TOKENS, 1).astype("float32")
    x, y = random.randn(rows, TOKENS).astype("float32"), random.randn(rows, 1).astype("float32")
    return (x, y, random.rand(rows).astype("float32")) if case.data == "weighted" else (x, y)


def data_of(case: Case, batch: int, *, whole: bool) -> dict[str, Any]:
    """Arguments of `fit`.

    On one device of whole data: of data of unknown size Keras alone counts one step more an epoch, and the iterator of
    endless data may take a minute to end.
    """
    arrays = rows_of(case, case.rows)
    if case.data == "arrays":
        return {"x": arrays[0], "y": arrays[1], "batch_size": batch, "shuffle": False}
    dataset = tf.data.Dataset.from_tensor_slices(arrays)
    if case.data == "unknown" and not whole:
        dataset = dataset.filter(lambda x, y: True)
    dataset = dataset.batch(batch)
    return {"x": dataset.repeat() if case.data == "endless" and not whole else dataset}


def fit(strategy: Any, case: Case, *, global_batches: bool) -> dict[str, Any]:
    keras.utils.set_random_seed(7)
    with strategy.scope():
        model = case.model()
        model.compile(case.optimizer(), "mse")
    batch, options = (BATCH * case.worker_batches, {}) if global_batches else (BATCH, case.fit)
    model.set_weights(initial(model))  # which are drawn in another way for shards
    before = model.get_weights()
    held_out = tf.data.Dataset.from_tensor_slices(rows_of(case, 20, seed=2)).batch(5)
    data = data_of(case, batch, whole=global_batches)
    history = model.fit(**data, **options, epochs=EPOCHS, verbose=0, validation_data=held_out).history
    return {
        "weights": flat(model.get_weights()),
        "moved": np.abs(flat(model.get_weights()) - flat(before)).max(),
        "slots": flat([np.asarray(one, "float64") for one in model.optimizer.variables]),
        "iterations": int(model.optimizer.iterations),
        "loss": history["loss"],
        "val_loss": history["val_loss"],
    }


def initial(model: keras.Model) -> list[np.ndarray]:
    random = np.random.RandomState(3)
    return [random.randn(*one.shape).astype("float32") / 4 for one in model.get_weights()]


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(one) for one in arrays])


def on_batches(strategy: Any) -> dict[str, Any]:
    """Four calls of `train_on_batch`, then a `fit`; each call is a step of its own."""
    keras.utils.set_random_seed(7)
    with strategy.scope():
        model = dense()
        model.compile(adam(), "mse")
    x, y = rows_of(Case(), 32)
    losses = [np.ravel(model.train_on_batch(x[i : i + BATCH], y[i : i + BATCH])) for i in range(0, 32, BATCH)]
    return {"weights": flat(model.get_weights()), "loss": losses, "iterations": int(model.optimizer.iterations)}


def pair(cluster: tfdist.cluster.Cluster, name: str) -> dict[str, Any]:
    def strategy(**options: Any) -> Any:
        return tfdist.ParameterServerStrategy(cluster, update=Synchronous(), **options)

    alone = tf.distribute.get_strategy()
    if name == "on batches":
        return {"found": on_batches(strategy()), "expected": on_batches(alone)}
    case = CASES[name]
    made = strategy(**case.strategy)
    found = fit(made, case, global_batches=False)
    staleness = made.staleness.counts.tolist(), made.staleness.dropped
    return {"found": found, "expected": fit(alone, case, global_batches=True), "staleness": staleness}


def refusals(cluster: tfdist.cluster.Cluster) -> dict[str, str]:
    """What is said of what can't be."""
    return {
        "steps_per_execution": refused(cluster, {"update": Synchronous()}, steps_per_execution=2),
        "compensated": refused(cluster, {"update": DelayCompensated(), "gradient_accumulation_steps": 2}),
    }


def refused(cluster: tfdist.cluster.Cluster, options: dict[str, Any], **compile_options: Any) -> str:
    strategy = tfdist.ParameterServerStrategy(cluster, **options)
    with strategy.scope():
        model = dense()
        model.compile("sgd", "mse", **compile_options)
    data = data_of(Case(), BATCH, whole=False)["x"]
    model.evaluate(data, verbose=0)  # is another matter
    try:
        model.fit(data, verbose=0)
    except ValueError as error:
        return str(error)
    return "nothing was raised"


def main(output: Path, chosen: list[str]) -> None:
    results: dict[str, Any] = {}
    with tfdist.cluster.local(workers=WORKERS, ps=PS) as cluster:
        for name in chosen or [*CASES, "on batches"]:
            print(name, flush=True)
            try:
                results[name] = pair(cluster, name)
            except Exception:
                results[name] = {"error": traceback.format_exc()}
            output.write_bytes(pickle.dumps(results))
        results["refusals"] = refusals(cluster)
        output.write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
