"""Trains with TensorFlow: `fit` or a loop by hand, under tfdist's strategies, TensorFlow's own, or none.

Options: strategy ("tfdist" or "stock"), engine ("fit", "loop" or "legacy fit": Keras 2), hidden (units of the layers),
devices (parts of this process' processor, 1), alone (whether each process trains by itself), and arguments of the
strategy ("arguments"). Requests: rows (of this process' replicas) and steps, perhaps hidden; or bytes
and times, of sums over all processes.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.task import Measure, Task, peak_bytes, serve
from benchmarks.tasks import contest
from benchmarks.tasks.arguments import of_strategy
from benchmarks.tasks.sums_tf import Sums

WARM_UP = 5


def prepare(task: Task) -> Measure:
    is_alone = task.options.get("alone", False)
    if task.tf_config() and not is_alone:
        os.environ["TF_CONFIG"] = task.tf_config()
    import tensorflow as tf

    importlib.import_module("tf_keras" if task.options["engine"] == "legacy fit" else "keras")
    imported, before = task.seconds_since_start(), peak_bytes()
    devices = task.options.get("devices", 1)
    if devices > 1:
        parts = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    strategy = make_strategy(task, devices, 1 if is_alone else task.workers)
    connected = task.seconds_since_start()
    first = contest.FirstStep(task.seconds_since_start)
    replicas = 1 if is_alone else task.workers
    trainings: dict[tuple[int, ...], Any] = {}
    make = _loop if task.options["engine"] == "loop" else _fit

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        if "bytes" in request:
            return {"seconds": sums.seconds(request["bytes"], request["times"])}
        hidden = tuple(request.get("hidden", task.options["hidden"]))
        if hidden not in trainings:
            trainings[hidden] = make(strategy, task, hidden)
        steps = request["steps"] + WARM_UP
        clock = contest.Clock(WARM_UP, first.note)
        trainings[hidden](request["rows"] * replicas, steps, clock)
        return {
            **clock.measured(),
            "imported": imported,
            "connected": connected,
            "first_step": first.seconds,
            "before": before,
            "peak": peak_bytes(),
        }

    sums = Sums(strategy)
    return measure


def make_strategy(task: Task, devices: int, workers: int) -> Any:
    """What the contender trains under; plain TensorFlow on one device."""
    import tensorflow as tf

    if devices == 1 and workers == 1:
        return tf.distribute.get_strategy()
    if task.options["strategy"] == "stock":
        if workers == 1:
            return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(devices)])
        return tf.distribute.MultiWorkerMirroredStrategy()
    import tfdist

    if workers == 1:
        return tfdist.MirroredStrategy([f"CPU:{index}" for index in range(devices)])
    return tfdist.MultiWorkerMirroredStrategy(**of_strategy(task.options))


def _data(rows: int, task: Task) -> Any:
    import tensorflow as tf

    x, y = contest.rows(rows * contest.BATCHES, contest.features(task.options))
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(rows, drop_remainder=True).repeat().prefetch(2)


def _model(keras: Any, task: Task, hidden: Sequence[int]) -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(units, activation="relu") for units in hidden]
    return keras.Sequential(
        [keras.layers.Input((contest.features(task.options),)), *layers, keras.layers.Dense(contest.CLASSES)]
    )


def _fit(strategy: Any, task: Task, hidden: Sequence[int]) -> Any:
    if task.options["engine"] == "legacy fit":
        import tf_keras as keras
    else:
        import keras

    with strategy.scope():
        model = _model(keras, task, hidden)
        optimizer = keras.optimizers.SGD(contest.RATE, momentum=contest.MOMENTUM)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def train(rows: int, steps: int, clock: contest.Clock) -> None:
        model.fit(_data(rows, task), steps_per_epoch=steps, verbose=0, callbacks=[contest.tick_of(keras, clock)])

    return train


def _loop(strategy: Any, task: Task, hidden: Sequence[int]) -> Any:
    import keras
    import tensorflow as tf

    with strategy.scope():
        model = _model(keras, task, hidden)
        optimizer = keras.optimizers.SGD(contest.RATE, momentum=contest.MOMENTUM)
        optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)

    def train(rows: int, steps: int, clock: contest.Clock) -> None:
        def step(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.nn.compute_average_loss(loss_of(y, model(x, training=True)), global_batch_size=rows)
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            return loss

        run = runs.setdefault(rows, tf.function(lambda batch: strategy.run(step, args=batch)))
        data = iter(strategy.experimental_distribute_dataset(_data(rows, task)))
        for _ in range(steps):
            run(next(data))
            clock.tick()
        clock.end()

    runs: dict[int, Any] = {}
    return train


if __name__ == "__main__":
    serve(prepare)
