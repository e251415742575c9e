"""Variables in shards against one device; `python -m tests.strategies.programs.sharded_variables DIRECTORY [PS]`.

With two ps (the default) it trains, and writes what it saw to DIRECTORY/checks.json and models beside it. With another
number of ps it only reads those.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tfdist._compat.tensorflow_sharded_variables import Shards

partitioners = tf.distribute.experimental.partitioners
optimizers, layers = keras.optimizers, keras.layers
ROWS = 23  # not a multiple of the shards

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: optimizers.SGD(0.5),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "adam": lambda: optimizers.Adam(0.01),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "adafactor": lambda: optimizers.Adafactor(0.01),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.5),
    "nadam": lambda: optimizers.Nadam(0.01),
    "lamb": lambda: optimizers.Lamb(0.01),
    "clipnorm": lambda: optimizers.Adam(0.01, clipnorm=0.01),
    "global_clipnorm": lambda: optimizers.SGD(0.5, global_clipnorm=0.01),
    "weight_decay": lambda: optimizers.SGD(0.1, weight_decay=0.1),
    "ema": lambda: optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "loss_scale": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01)),
}


class Tied(keras.Model):
    """Looks rows up, multiplies with all of them, and slices some."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.dense = layers.Embedding(ROWS, 4, embeddings_constraint="unit_norm"), layers.Dense(3)

    def call(self, ids: Any) -> Any:
        sums = keras.ops.sum(self.table(ids), axis=1)
        other_end = keras.ops.take(self.table.embeddings, ids[:, :1] - ROWS, axis=0)[:, 0]
        scores = keras.ops.matmul(sums + other_end, keras.ops.transpose(self.table.embeddings))
        return self.dense(scores) + keras.ops.sum(self.table.embeddings[:5])


def _sequential(*inner: Any, ids_dtype: str = "int32", **options: Any) -> keras.Model:
    return keras.Sequential([keras.Input((8,), dtype=ids_dtype), layers.Embedding(ROWS, 4, **options), *inner])


MODELS: dict[str, Callable[[], keras.Model]] = {
    "tied": Tied,
    "masked": lambda: _sequential(layers.LSTM(4), layers.Dense(3), mask_zero=True, embeddings_regularizer="l2"),
    "int64": lambda: _sequential(layers.Conv1D(4, 3), layers.Flatten(), layers.Dense(3), ids_dtype="int64"),
    "normalized": lambda: _sequential(
        layers.Flatten(), layers.BatchNormalization(), layers.Dropout(0.3, seed=3), layers.Dense(3)
    ),
    "bfloat16": lambda: _sequential(layers.Flatten(), layers.Dense(3, dtype="mixed_bfloat16"), dtype="mixed_bfloat16"),
}
CHECKS = ("sizes_and_places", "only_rows_travel", "drawn_on_the_ps", "seeds_and_scales", "own_loop", "backup", "saved")


def ids() -> np.ndarray:
    """Row numbers, with some more than once in a batch."""
    return np.random.RandomState(0).randint(0, ROWS, (50, 8)).astype("int32")


def data() -> tf.data.Dataset:
    """Batches of ids and classes."""
    return tf.data.Dataset.from_tensor_slices((ids(), np.random.RandomState(1).randint(0, 3, 50))).batch(10)


def plain_model() -> keras.Model:
    """An embedding and two dense layers."""
    return _sequential(layers.Flatten(), layers.Dense(8, activation="tanh"), layers.Dense(3))


def compiled(model: keras.Model, optimizer: Any, **options: Any) -> keras.Model:
    """Compile, and make the variables."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    if not model.built:
        model(ids()[:1])
    return model


def difference(first: list[Any], second: list[Any]) -> float:
    """The largest between arrays or variables at the same places."""
    pairs = zip(first, second, strict=True)
    return max(float(np.max(np.abs(np.subtract(np.asarray(a), np.asarray(b), dtype="float64")))) for a, b in pairs)


def shards_of(variables: list[Any]) -> list[Shards]:
    """Those that are in shards."""
    return [variable.value for variable in variables if isinstance(variable.value, Shards)]


class Program:
    """The checks; a process can have but one strategy.

    Args:
        strategy: with two ps.
        folder: for models.
    """

    def __init__(self, strategy: tfdist.ParameterServerStrategy, folder: Path) -> None:
        self.strategy, self.folder = strategy, folder

    def pair(self, make: Callable[[], keras.Model], optimizer: Callable[[], Any], **options: Any) -> list[keras.Model]:
        """The same model on one device and in shards."""
        keras.utils.set_random_seed(7)
        alone = compiled(make(), optimizer(), **options)
        keras.utils.set_random_seed(7)
        with self.strategy.scope():
            sharded = compiled(make(), optimizer(), **options)
        sharded.set_weights(alone.get_weights())
        assert shards_of(sharded.weights)
        return [alone, sharded]

    def trained(
        self, make: Callable[[], keras.Model], optimizer: Callable[[], Any], **options: Any
    ) -> dict[str, float]:
        """How far apart the two are after two epochs."""
        alone, sharded = models = self.pair(make, optimizer, **options)
        before = alone.get_weights()
        histories = [model.fit(data(), epochs=2, verbose=0).history for model in models]
        found = {
            "moved": difference(before, alone.get_weights()),
            "weights": difference(alone.get_weights(), sharded.get_weights()),
            "slots": difference(alone.optimizer.variables, sharded.optimizer.variables),
            "logs": difference(*(list(history.values()) for history in histories)),
        }
        if make is not plain_model:  # tracing takes long
            found["evaluate"] = difference(*(model.evaluate(data(), verbose=0) for model in models))
            found["predict"] = difference(*([model.predict(data(), verbose=0)] for model in models))
        return found

    def sizes_and_places(self) -> None:
        """Shards of the partitioner's sizes on both ps, slots beside their shards."""
        _, model = self.pair(plain_model, OPTIMIZERS["adam"])
        model.fit(data(), verbose=0)
        table = model.weights[0].value
        assert [part.shape[0] for part in table.variables] == [12, 11]
        assert len({part.device for part in table.variables}) == 2
        slots = [one for one in shards_of(model.optimizer.variables) if one.shape == table.shape]
        assert len(slots) == 2
        for slot in slots:
            assert [one.device for one in slot.variables] == [one.device for one in table.variables]
            assert [one.shape for one in slot.variables] == [one.shape for one in table.variables]

    def only_rows_travel(self) -> None:
        """What an embedding returns comes from lookups on the ps, and its gradient is of the rows."""
        _, model = self.pair(plain_model, OPTIMIZERS["sgd"])
        graph = tf.function(model.layers[0]).get_concrete_function(tf.TensorSpec([None, 8], tf.int32))
        seen, ahead = {}, [output.op for output in graph.outputs]
        while ahead:
            op = ahead.pop()
            if op.name not in seen:
                seen[op.name] = op.type
                ahead += [tensor.op for tensor in op.inputs]
        assert sorted(seen.values()).count("ResourceGather") == 2
        assert "ReadVariableOp" not in seen.values()

    def drawn_on_the_ps(self) -> None:
        """An embedding is never made as a whole."""
        drawn: list[tuple[tuple[int, ...], str]] = []
        upstream = keras.initializers.RandomUniform.__call__

        def call(self: Any, shape: Any, dtype: Any = None) -> Any:
            value = upstream(self, shape, dtype)
            drawn.append((tuple(shape), tf.DeviceSpec.from_string(value.backing_device).job))
            return value

        keras.initializers.RandomUniform.__call__ = call
        try:
            with self.strategy.scope():
                layers.Embedding(ROWS, 40).build()
        finally:
            keras.initializers.RandomUniform.__call__ = upstream
        assert drawn == [((12, 40), "ps"), ((11, 40), "ps")], drawn

    def seeds_and_scales(self) -> None:
        """Shards differ, in the same way each time, and are as large as the whole would be."""
        shape, initializers = (1000, 8), keras.initializers

        def made(initializer: Any) -> np.ndarray:
            with self.strategy.scope():
                variable = keras.Variable(initializer, shape=shape, dtype="float32")
            assert isinstance(variable.value, Shards)
            return variable.numpy()

        for seed in (3, keras.random.SeedGenerator(3)):
            value = made(initializers.RandomUniform(seed=seed))
            assert not np.any(value[:500] == value[500:])
            assert 0.049 < value.max() < 0.05
        np.testing.assert_array_equal(*(made(initializers.RandomNormal(seed=3)) for _ in range(2)))
        for initializer in (initializers.GlorotUniform(seed=1), initializers.HeNormal(1), initializers.LecunNormal(1)):
            np.testing.assert_allclose(made(initializer).std(), np.std(initializer(shape)), rtol=0.05)
        orthogonal = made(initializers.Orthogonal(seed=1))
        np.testing.assert_allclose(orthogonal.T @ orthogonal, np.eye(8), atol=1e-5)
        np.testing.assert_array_equal(made(initializers.Constant(np.arange(8.0))), np.tile(np.arange(8.0), (1000, 1)))

    def own_loop(self) -> None:
        """A tape gives rows for an embedding and a whole for the rest; one batch trains as well."""
        alone, sharded = self.pair(plain_model, OPTIMIZERS["adagrad"])
        gradients = []
        for model in (alone, sharded):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(ids()[:10]) ** 2)
            gradients.append(tape.gradient(loss, model.trainable_weights))
        assert [type(one) for one in gradients[0]] == [type(one) for one in gradients[1]]
        whole = [[tf.convert_to_tensor(one) for one in some] for some in gradients]
        assert difference(*whole) < 1e-6
        assert tf.identity(sharded.weights[0].value).shape == (ROWS, 4)
        for model in (alone, sharded):
            model.train_on_batch(ids()[:10], np.arange(10) % 3)
        assert difference(alone.get_weights(), sharded.get_weights()) < 1e-6

    def backup(self) -> None:
        """BackupAndRestore goes on where another model stopped."""
        alone, first = self.pair(plain_model, OPTIMIZERS["adam"])
        _, second = self.pair(plain_model, OPTIMIZERS["adam"])
        alone.fit(data(), epochs=2, verbose=0)
        for model, epochs in ((first, 1), (second, 2)):
            restore = keras.callbacks.BackupAndRestore(self.folder / "backup", delete_checkpoint=False)
            model.fit(data(), epochs=epochs, verbose=0, callbacks=[restore])
        assert difference(alone.get_weights(), second.get_weights()) < 1e-6

    def saved(self) -> None:
        """All files, for others to read, and those of plain Keras read here."""
        alone, sharded = self.pair(plain_model, OPTIMIZERS["adam"])
        for name, model in (("plain", alone), ("sharded", sharded)):
            model.fit(data(), verbose=0)
            write(model, self.folder / name)
        read_all(self.strategy, self.folder)


def write(model: keras.Model, folder: Path) -> None:
    """In every way."""
    folder.mkdir()
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    model.export(folder / "exported", verbose=False)
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(folder / "checkpoint"))
    state = [*model.get_weights(), *(variable.numpy() for variable in model.optimizer.variables)]
    np.savez(folder / "state.npz", *state)
    np.save(folder / "predictions.npy", model.predict(ids(), verbose=0))


def read_all(strategy: tfdist.ParameterServerStrategy, folder: Path) -> None:
    """Both models, in every way, into shards."""
    for name in ("plain", "sharded"):
        expected = list(np.load(folder / name / "state.npz").values())
        with strategy.scope():
            loaded = keras.models.load_model(folder / name / "model.keras")
            weights, restored = (compiled(plain_model(), OPTIMIZERS["adam"]()) for _ in range(2))
            restored.optimizer.build(restored.trainable_variables)
        weights.load_weights(folder / name / "model.weights.h5")
        checkpoint = tf.train.Checkpoint(model=restored, optimizer=restored.optimizer)
        checkpoint.read(str(folder / name / "checkpoint")).assert_existing_objects_matched()
        for model in (loaded, restored):
            assert len(shards_of([*model.weights, *model.optimizer.variables])) >= 9
            assert difference([*model.weights, *model.optimizer.variables], expected) == 0
        assert difference(weights.weights, expected[: len(weights.weights)]) == 0


def main(folder: Path) -> None:
    """All checks, each by itself."""
    with tfdist.cluster.local(workers=1, ps=2) as cluster:
        two = partitioners.MinSizePartitioner(min_shard_bytes=64, max_shards=2)
        program = Program(tfdist.ParameterServerStrategy(cluster, max_in_flight=1, variable_partitioner=two), folder)
        todo: dict[str, Callable[[], Any]] = {name: getattr(program, name) for name in CHECKS}
        for name, optimizer in OPTIMIZERS.items():
            todo[name] = lambda optimizer=optimizer: program.trained(plain_model, optimizer)
        for name, model in MODELS.items():
            todo[name] = lambda model=model: program.trained(model, OPTIMIZERS["adam"])
        todo["executions"] = lambda: program.trained(plain_model, OPTIMIZERS["adam"], steps_per_execution=3)
        checks = {name: checked(check) for name, check in todo.items()}
    (folder / "checks.json").write_text(json.dumps(checks, indent=1))


def checked(check: Callable[[], Any]) -> dict[str, Any]:
    """What it returned, or how it failed."""
    try:
        return check() or {}
    except Exception:
        return {"error": traceback.format_exc()}


def read(folder: Path, ps: int) -> None:
    """Into three shards of each variable that has as many rows."""
    with tfdist.cluster.local(workers=1, ps=ps) as cluster:
        three = partitioners.FixedShardsPartitioner(3)
        strategy = tfdist.ParameterServerStrategy(cluster, max_in_flight=1, variable_partitioner=three)
        read_all(strategy, folder)
        with strategy.scope():
            model = keras.models.load_model(folder / "sharded" / "model.keras")
        assert [part.shape[0] for part in model.weights[0].value.variables] == [8, 8, 7]
        expected = np.load(folder / "sharded" / "predictions.npy")
        np.testing.assert_allclose(model.predict(ids(), verbose=0), expected, atol=1e-6)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        read(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
