"""`python -m tests.strategies.programs.hybrid_parallel_job FOLDER`: what two workers of a mesh do beside training.

Writes FOLDER/RANK.json. Each worker has one device, so that an axis of the mesh is between them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.experimental import dtensor

import tfdist
from tests.strategies.programs.hybrid_parallel import flat
from tfdist.errors import WorkersDisagreeError

ROWS, BATCH, WIDTH = 53, 10, 4
BY_COLUMNS = {".*up/kernel": (None, "model")}
DEADLINE_SECONDS = 100.0


def build() -> keras.Model:
    model = keras.Sequential(
        [keras.Input((WIDTH,)), keras.layers.Dense(8, "tanh", name="up"), keras.layers.Dense(1, name="down")]
    )
    model.compile(keras.optimizers.Adam(0.01, epsilon=1e-4), "mse")
    return model


def under(strategy: Any) -> keras.Model:
    """The model under a strategy; None for plain Keras."""
    keras.utils.set_random_seed(5)
    if strategy is None:
        return build()
    with strategy.scope():
        return build()


def arrays(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.RandomState(0).randn(rows, WIDTH).astype("float32")
    return x, x.sum(1, keepdims=True) ** 2


class Job:
    """What one worker finds.

    Args:
        folder: the same for all workers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_rows = tfdist.HybridParallelStrategy({"batch": 2}, zero_stage=3)
        self.by_columns = tfdist.HybridParallelStrategy({"model": 2}, BY_COLUMNS)
        self.rank = self.by_rows.worker_index

    def records(self) -> dict[str, Any]:
        """Records that are read by each worker for itself, the last batch of three rows; against one device."""
        pattern = str(self.folder / "rows")
        features = {"x": tfdist.data.Tensor([WIDTH], "float32"), "y": tfdist.data.Tensor([1], "float32")}

        def write() -> None:
            with tfdist.data.TFRecordWriter(pattern, features, num_shards=3) as writer:
                for x, y in zip(*arrays(), strict=True):
                    writer.write(x=x, y=y)

        def pairs(sharding: str, **options: Any) -> tf.data.Dataset:
            read = tfdist.data.read_tfrecords(
                f"{pattern}-*", features, batch_size=BATCH, label="y", sharding=sharding, **options
            )
            return read.map(lambda x, y: (x["x"], y))

        self.by_rows.on_chief(write, name=pattern)
        with self.by_columns.scope():
            whole = pairs("batches")
        with self.by_rows.scope():
            own, runs = pairs("batches"), pairs("records")
        found: dict[str, Any] = {
            name: [len(x) for x, _ in data]
            for name, data in (("rows by rows", own), ("rows by columns", whole), ("rows of runs", runs))
        }
        plain, everything = under(None), pairs("batches", shard=tfdist.data.ShardOptions())
        expected = plain.fit(everything, epochs=2, verbose=0).history["loss"]
        for name, strategy, data in (("by rows", self.by_rows, own), ("by columns", self.by_columns, whole)):
            model = under(strategy)
            losses = model.fit(data, epochs=2, verbose=0).history["loss"]
            found[name] = difference(losses, expected, model, plain)
        found["runs"] = abs(model_of(self.by_rows, plain).evaluate(runs, verbose=0) - evaluated(plain))
        with self.by_columns.scope():
            model = build()
        found["another share"] = said(lambda: model.fit(own, verbose=0))
        return found

    def own_rows(self) -> dict[str, Any]:
        """Of a dataset of global batches, what this worker's device has."""
        data = tf.data.Dataset.from_tensor_slices(np.arange(6, dtype="float32")).batch(4)
        first, last = self.by_rows.experimental_distribute_dataset(data)
        return {name: dtensor.unpack(one)[0].numpy().tolist() for name, one in (("even", first), ("last", last))} | {
            "odd": dtensor.unpack(self.by_rows.split_batch(np.arange(3.0)))[0].numpy().tolist(),
            "uneven": [dtensor.unpack(one)[0].numpy().tolist() for one in self._uneven()],
        }

    def _uneven(self) -> Any:
        """A share of one's own: the chief has three rows of two batches, the other worker two of one."""
        rows = tf.ragged.constant([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] if self.by_rows.is_chief else [[10.0, 11.0]])
        data = tf.data.Dataset.from_tensor_slices(rows).map(lambda row: row)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return self.by_rows.experimental_distribute_dataset(data.with_options(options))

    def one_batch(self) -> dict[str, float]:
        """Methods that take a batch, and a loop of one's own; against one device."""
        x, y = arrays(8)
        found = {}
        for name, strategy in {"rows": self.by_rows, "columns": self.by_columns}.items():
            model, plain = under(strategy), under(None)
            losses = [[one.train_on_batch(x, y), one.test_on_batch(x, y)] for one in (model, plain)]
            found[f"on batch, by {name}"] = difference(*losses, model, plain)
            rows = model.predict_on_batch(x) - plain.predict_on_batch(x)
            found[f"predict on batch, by {name}"] = float(np.abs(rows).max())
            total = tf.function(lambda inputs, model=model: tf.reduce_sum(model(inputs)))
            found[f"run, by {name}"] = abs(float(strategy.run(total, args=(x,))) - float(np.sum(plain(x))))
        return found

    def files(self) -> dict[str, Any]:
        """What the chief writes of a model whose parts are on both."""
        model, (x, y) = under(self.by_columns), arrays()
        folder = self.folder
        callbacks = [
            keras.callbacks.ModelCheckpoint(str(folder / "best.keras"), monitor="loss", save_best_only=True),
            keras.callbacks.BackupAndRestore(str(folder / "backup"), delete_checkpoint=False),
            keras.callbacks.CSVLogger(str(folder / "log.csv")),
        ]
        model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, callbacks=callbacks)
        model.save(folder / "model.keras")
        model.save_weights(folder / "model.weights.h5")
        plain = keras.models.load_model(folder / "model.keras")
        fresh = under(self.by_rows)
        fresh.load_weights(folder / "model.weights.h5")
        with self.by_columns.scope():
            loaded = keras.models.load_model(folder / "best.keras")
        own = flat(model.get_weights())
        found = {
            name: float(np.abs(flat(one.get_weights()) - own).max())
            for name, one in (("plain", plain), ("weights", fresh), ("best", loaded))
        }
        for one in (plain, loaded):
            one.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        return found | {"goes on": float(np.abs(flat(plain.get_weights()) - flat(loaded.get_weights())).max())}

    def disagreements(self) -> dict[str, str]:
        """What is said where workers don't do the same; all of it before anything waits for the other."""
        x, y = arrays(8)

        def train(seed: int = 0, initial_seed: int = 0, batch_size: int = 4) -> None:
            keras.utils.set_random_seed(seed)
            with self.by_rows.scope():
                initializer = keras.initializers.RandomNormal(seed=initial_seed)
                # Of three rows, which two devices can't share, so both have them.
                model = keras.Sequential([keras.layers.Dense(3, kernel_initializer=initializer, use_bias=False)])
                model.compile("sgd", "mse")
                model.build((None, 3))
            model.fit(x[:, :3], y, batch_size=batch_size, verbose=0)

        def make(*given: Any, **options: Any) -> Callable[[], Any]:
            return lambda: tfdist.HybridParallelStrategy(*given, **options)

        is_chief = self.by_rows.is_chief
        mistakes: dict[str, Callable[[], Any]] = {
            "mesh": make({"batch": 2} if is_chief else {"model": 2}),
            "layouts": make({"model": 2}, BY_COLUMNS if is_chief else None),
            "ZeRO stage": make({"batch": 2}, zero_stage=3 * self.rank),
            "global seed": lambda: train(seed=self.rank),
            "weights": lambda: train(initial_seed=self.rank),
            "batch size": lambda: train(batch_size=4 + 4 * self.rank),
        }
        return {name: said(make) for name, make in mistakes.items()} | {"alone": self._saved_alone()}

    def _saved_alone(self) -> str:
        strategy = tfdist.HybridParallelStrategy({"model": 2}, BY_COLUMNS, peer_timeout_seconds=3)
        model, ended = under(strategy), self.folder / "saved-alone"
        if strategy.is_chief:
            text = said(lambda: model.save(self.folder / "alone.keras"))
            ended.touch()
            return text
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not ended.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return ""


def evaluated(plain: keras.Model) -> float:
    x, y = arrays()
    return plain.evaluate(x, y, batch_size=BATCH, verbose=0)


def model_of(strategy: Any, plain: keras.Model) -> keras.Model:
    model = under(strategy)
    model.set_weights(plain.get_weights())
    return model


def difference(received: Any, expected: Any, model: keras.Model, plain: keras.Model) -> float:
    """Of losses and of weights, the largest."""
    weights = np.abs(flat(model.get_weights()) - flat(plain.get_weights())).max()
    return float(max(weights, np.abs(np.subtract(received, expected)).max()))


def said(do: Callable[[], Any]) -> str:
    try:
        do()
    except (ValueError, WorkersDisagreeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main(folder: Path) -> None:
    job, found = Job(folder), {}
    for fact in (job.records, job.own_rows, job.one_batch, job.files, job.disagreements):
        found[fact.__name__] = fact()
        print(fact.__name__, found[fact.__name__], flush=True)
    (folder / f"{job.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
