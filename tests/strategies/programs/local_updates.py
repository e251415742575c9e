"""Fits in which workers train parameters of their own, and the same by one device's Keras, averaged by hand.

python -m tests.strategies.programs.local_updates OUTPUT
"""

from __future__ import annotations

import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.slow import Slow
from tests.helpers.tasks import running
from tests.strategies.programs.parameter_server_faults import At
from tfdist.cluster import Cluster, Task
from tfdist.updates import Accumulated, ElasticAveraging, Incremental

BATCH, ROWS, EPOCHS = 8, 300, 2  # 38 batches, the last one of 4
ALPHA, EVERY, MOMENTUM = 0.4, 3, 0.5
TOGETHER = 4
WORKERS = 2
PARTS = 48
Weights = list[np.ndarray]


def features() -> np.ndarray:
    return np.random.RandomState(3).randint(0, 20, [ROWS, 5])


def labels() -> np.ndarray:
    return np.random.RandomState(4).randint(0, 3, ROWS)


def batches() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((features(), labels())).batch(BATCH)


def sgd() -> Any:
    rate = keras.optimizers.schedules.InverseTimeDecay(0.5, 10, 0.5)
    return keras.optimizers.SGD(rate, weight_decay=0.01, global_clipnorm=1.0)


def adam() -> Any:
    return keras.optimizers.Adam(0.02)


def build(optimizer: Any) -> keras.Model:
    """Looks rows up."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Embedding(20, 4), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def fitted(cluster: Cluster, policy: Any, make: Callable[[], Any], *callbacks: Any, **options: Any) -> dict[str, Any]:
    strategy = tfdist.ParameterServerStrategy(cluster, update=policy, **options)
    with strategy.scope():
        model = build(make())
    history = model.fit(batches(), epochs=EPOCHS, verbose=0, callbacks=list(callbacks)).history
    return {
        "weights": model.get_weights(),
        "loss": history["loss"],
        "iterations": int(model.optimizer.iterations),
        "pushes": strategy.staleness.pushes,
        "reported": strategy.reported_steps,
    }


def elastic_by_hand(make: Callable[[], Any], momentum: float) -> dict[str, Any]:
    """One worker and the centre; see `ElasticAveraging`."""
    model = build(make())
    own = model.trainable_variables
    centre = [one.numpy() for one in own]
    velocity = [np.zeros_like(one) for one in centre]
    since = 0
    for _ in range(EPOCHS):
        for x, y in batches():
            x_of = [one.numpy() for one in own]
            ahead = [a + momentum * v for a, v in zip(x_of, velocity, strict=True)]
            assign(own, ahead)
            gradients = gradients_of(model, x, y)
            if since >= EVERY:
                differences = [ALPHA * (a - c) for a, c in zip(x_of, centre, strict=True)]
                x_of = [a - d for a, d in zip(x_of, differences, strict=True)]
                centre = [c + d for c, d in zip(centre, differences, strict=True)]
                since = 0
            # The optimizer's change, from where the worker is after the meeting.
            at = [a + momentum * v for a, v in zip(x_of, velocity, strict=True)]
            assign(own, at)
            model.optimizer.apply(gradients, own)
            change = [one.numpy() - before for one, before in zip(own, at, strict=True)]
            velocity = [momentum * v + c for v, c in zip(velocity, change, strict=True)]
            assign(own, [a + v for a, v in zip(x_of, velocity, strict=True)])
            if not momentum:
                velocity = [np.zeros_like(v) for v in velocity]
            since += 1
    return {"weights": centre}


def assign(variables: list[Any], values: Weights) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def gradients_of(model: Any, x: Any, y: Any) -> list[Any]:
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    return tape.gradient(loss, model.trainable_weights)


def averaged_by_hand(make: Callable[[], Any], steps: int, parts: int, *, mean_of_steps: bool) -> dict[str, Any]:
    """`parts` parts of `steps` batches from the same parameters, then their changes' average; see the policies."""
    model = build(make())
    data = list(batches())
    for _ in range(EPOCHS):
        cut = [data[i : i + steps] for i in range(0, len(data), steps)]
        for i in range(0, len(cut), parts):
            centre = [one.numpy() for one in model.trainable_variables]
            begun, counts_anew = int(model.optimizer.iterations), parts > 1
            changes, rows = [], []
            for part in cut[i : i + parts]:
                assign(model.trainable_variables, centre)
                if counts_anew:
                    model.optimizer.iterations.assign(begun)
                for x, y in part:
                    model.optimizer.apply(gradients_of(model, x, y), model.trainable_variables)
                count = len(part) if mean_of_steps else 1
                pairs = zip(model.trainable_variables, centre, strict=True)
                changes.append([(one.numpy() - before) / count for one, before in pairs])
                rows.append(sum(len(y) for _, y in part))
            means = [np.average(each, 0, rows) for each in zip(*changes, strict=True)]
            assign(model.trainable_variables, [c + m for c, m in zip(centre, means, strict=True)])
            if counts_anew:
                model.optimizer.iterations.assign(begun + sum(map(len, cut[i : i + parts])))
    return {"weights": model.get_weights()}


class Tally(keras.layers.Layer):
    """Has a weight for each of `size` examples; its loss moves that of each example that comes, by as much."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.tally = self.add_weight(shape=(size,), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        return -tf.reduce_sum(tf.one_hot(inputs[:, 0], self.size) * self.tally, -1, keepdims=True)


def tallied(cluster: Cluster, policy: Any, *callbacks: Any) -> dict[str, Any]:
    """How often each example has come to the parameters, fed by the chief, in `PARTS` parts of two batches."""
    size = PARTS * 2 * BATCH
    strategy = tfdist.ParameterServerStrategy(cluster, update=policy, data="feed")
    with strategy.scope():
        tally = Tally(size)
        model = keras.Sequential([keras.Input((1,), dtype="int32"), Slow([0.02] * WORKERS), tally])
        # A round's average divides by the workers, a batch's loss by its rows.
        model.compile(keras.optimizers.SGD(float(WORKERS * BATCH)), lambda y_true, y_pred: y_pred)
    x = np.arange(size, dtype="int32")[:, None]
    model.fit(x, np.zeros([size, 1]), batch_size=BATCH, verbose=0, callbacks=list(callbacks), shuffle=False)
    return {"tally": tally.tally.numpy(), "reported": strategy.reported_steps, "repeated": strategy.repeated_steps}


def with_a_worker_killed(folder: Path, run: Callable[[Cluster, Any], dict[str, Any]]) -> dict[str, Any]:
    """For good."""
    with running(folder, workers=2, ps=1) as (cluster, tasks):
        return run(cluster, At(20, lambda: tasks.signal(Task("worker", 0), signal.SIGKILL)))


def paced(cluster: Cluster) -> dict[str, Any]:
    """Of data that workers read, with a slow one among them."""
    strategy = tfdist.ParameterServerStrategy(cluster, update=Incremental(10 * BATCH))
    with strategy.scope():
        slow = Slow([0.1, 0.01, 0.01])
        model = keras.Sequential([keras.Input((1,)), slow, keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.0), "mse")
    x = tf.range(300.0 * BATCH)[:, None]
    data = tf.data.Dataset.from_tensor_slices((x, x)).batch(BATCH)
    model.fit(data, epochs=2, verbose=0)
    return {"steps of each worker": slow.steps.numpy(), "reported": strategy.reported_steps}


def mixed_precision(cluster: Cluster, policy: Any) -> dict[str, Any]:
    """Float16 with a loss scale, constraints, moving statistics; two steps an execution."""
    strategy = tfdist.ParameterServerStrategy(cluster, update=policy)
    with strategy.scope():
        limits = keras.constraints.MaxNorm(2.0)
        first = keras.layers.Dense(8, "tanh", dtype="mixed_float16", kernel_constraint=limits)
        layers = [first, keras.layers.BatchNormalization(dtype="mixed_float16"), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((4,)), *layers])
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(0.02), initial_scale=1024.0)
        model.compile(optimizer, "mse", steps_per_execution=2)
    x = tf.random.stateless_normal([400, 4], [1, 2])
    data = tf.data.Dataset.from_tensor_slices((x, tf.reduce_sum(x, 1, keepdims=True))).batch(BATCH)
    loss = model.fit(data, epochs=3, verbose=0).history["loss"]
    return {"loss": loss, "iterations": int(optimizer.iterations), "norm": np.linalg.norm(first.kernel, axis=0).max()}


def of_unknown_length(cluster: Cluster) -> dict[str, Any]:
    """Workers read it, and nobody knows how long it is; then the same data, a part of it, then all."""
    strategy = tfdist.ParameterServerStrategy(cluster, update=Incremental(TOGETHER * BATCH))
    with strategy.scope():
        model = build(sgd())
    found = {}
    unknown, known = batches().filter(lambda x, y: True), batches()
    for name, data, options in [
        ("unknown", unknown, {}),
        ("limited", known, {"steps_per_epoch": 10}),
        ("all", known, {"steps_per_epoch": 38}),
    ]:
        model.fit(data, verbose=0, **options)
        found[name] = strategy.reported_steps, strategy.staleness.pushes
    return found


def refused(cluster: Cluster) -> dict[str, str]:
    """What is said of what can't be."""
    said = {}

    def note(name: str, run: Callable[[], Any]) -> None:
        try:
            run()
        except ValueError as error:
            said[name] = str(error)

    policy = Accumulated(TOGETHER)
    note("accumulation", lambda: fitted(cluster, policy, sgd, gradient_accumulation_steps=2))
    note("use_ema", lambda: fitted(cluster, policy, lambda: keras.optimizers.SGD(0.1, use_ema=True)))
    note("no optimizer", lambda: fitted(cluster, policy, lambda: None))
    shards = tf.distribute.experimental.partitioners.FixedShardsPartitioner(2)
    note("shards", lambda: fitted(cluster, policy, sgd, variable_partitioner=shards))
    strategy = tfdist.ParameterServerStrategy(cluster, update=policy)
    with strategy.scope():
        model = build(sgd())
    note("one batch", lambda: model.train_on_batch(features()[:BATCH], labels()[:BATCH]))
    return said


def main(output: Path) -> None:
    results: dict[str, Any] = {}
    with tfdist.cluster.local(workers=1, ps=2) as cluster:
        for name, make, momentum in [("sgd", sgd, 0.0), ("adam", adam, 0.0), ("momentum", sgd, MOMENTUM)]:
            policy = ElasticAveraging(ALPHA, EVERY, momentum)
            results[f"elastic {name}"] = fitted(cluster, policy, make, max_in_flight=1)
            results[f"elastic {name} by hand"] = elastic_by_hand(make, momentum)
        for name, policy, is_mean in [
            ("accumulated adam", Accumulated(TOGETHER), True),
            ("incremental adam", Incremental(TOGETHER * BATCH), False),
        ]:
            results[name] = fitted(cluster, policy, adam, max_in_flight=1, data="feed")
            results[f"{name} by hand"] = averaged_by_hand(adam, TOGETHER, 1, mean_of_steps=is_mean)
    with tfdist.cluster.local(workers=WORKERS, ps=2) as cluster:
        results["accumulated"] = fitted(cluster, Accumulated(TOGETHER), sgd, max_in_flight=1)
        results["accumulated by hand"] = averaged_by_hand(sgd, TOGETHER, 1, mean_of_steps=True)
        results["incremental"] = fitted(cluster, Incremental(TOGETHER * BATCH), sgd, data="feed")
        results["incremental by hand"] = averaged_by_hand(sgd, TOGETHER, WORKERS, mean_of_steps=False)
        results["tally"] = tallied(cluster, Incremental(2 * BATCH))
        results["lengths"] = of_unknown_length(cluster)
        results["refused"] = refused(cluster)
        for policy in (Accumulated(TOGETHER), ElasticAveraging(ALPHA, EVERY), Incremental(TOGETHER * BATCH)):
            results[f"mixed {type(policy).__name__}"] = mixed_precision(cluster, policy)
    with tfdist.cluster.local(workers=3, ps=1) as cluster:
        results["paced"] = paced(cluster)
    folder = output.parent
    results["tally killed"] = with_a_worker_killed(
        folder, lambda cluster, kill: tallied(cluster, Incremental(2 * BATCH), kill)
    )
    results["elastic killed"] = with_a_worker_killed(
        folder, lambda cluster, kill: fitted(cluster, ElasticAveraging(ALPHA, EVERY), adam, kill)
    )
    output.write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
