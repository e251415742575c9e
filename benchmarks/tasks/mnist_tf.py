"""Trains on MNIST to an accuracy with one of tfdist's strategies, or with a loop under TensorFlow's own.

Options: strategy (a class of tfdist, or "stock"), arguments of it, hidden, rate, rows (of a batch), momentum and
steps_per_execution. Requests: target, parts_a_pass, most_passes.
"""

from __future__ import annotations

import os
from typing import Any

from benchmarks.harness.task import Measure, Task, serve
from benchmarks.tasks import mnist
from benchmarks.tasks.arguments import of_strategy
from benchmarks.tasks.contest import CLASSES, FEATURES, MOMENTUM


def prepare(task: Task) -> Measure:
    os.environ["TF_CONFIG"] = task.tf_config()
    import keras
    import tensorflow as tf

    options = task.options
    if options["strategy"] == "stock":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        import tfdist

        # On parameter servers and their workers it doesn't return.
        strategy = getattr(tfdist, options["strategy"])(**of_strategy(options))
    keras.utils.set_random_seed(0)
    x, y, *test = mnist.load()
    with strategy.scope():
        hidden = [keras.layers.Dense(units, activation="relu") for units in options["hidden"]]
        model = keras.Sequential([keras.layers.Input((FEATURES,)), *hidden, keras.layers.Dense(CLASSES)])
        optimizer = keras.optimizers.SGD(options["rate"], momentum=options.get("momentum", MOMENTUM))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, steps_per_execution=options.get("steps_per_execution", 1))
    rows = options["rows"]
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).batch(rows, drop_remainder=True)
    data = data.repeat().prefetch(2)

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        parts, passes = request["parts_a_pass"], request["most_passes"]
        race = mnist.Race(request["target"], (test[0], test[1]), parts * passes)
        steps = len(x) // rows // parts
        train = _loop if options["strategy"] == "stock" else _fit
        train(strategy, model, data, steps, race, parts * passes)
        return race.result()

    return measure


def _fit(strategy: Any, model: Any, data: Any, steps: int, race: mnist.Race, parts: int) -> None:
    import keras

    class Judge(keras.callbacks.Callback):
        reads_batch_logs = False
        _is_first = True

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            race.go()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self._is_first:
                race.go()
            self._is_first = False

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if not race.judge(model.get_weights()):
                model.stop_training = True

    each = model.steps_per_execution
    steps = max(1, steps // each) * each
    model.fit(data, steps_per_epoch=steps, epochs=parts, verbose=0, callbacks=[Judge()])


def _loop(strategy: Any, model: Any, data: Any, steps: int, race: mnist.Race, parts: int) -> None:
    import keras
    import tensorflow as tf

    optimizer = model.optimizer
    with strategy.scope():
        optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    rows = int(data.element_spec[0].shape[0])

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.nn.compute_average_loss(loss_of(y, model(x, training=True)), global_batch_size=rows)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    @tf.function
    def run(batch: Any) -> None:
        strategy.run(step, args=batch)

    batches = iter(strategy.experimental_distribute_dataset(data))
    run(next(batches))
    goes_on = True
    while goes_on:
        race.go()
        for _ in range(steps):
            run(next(batches))
        goes_on = race.judge(model.get_weights())


if __name__ == "__main__":
    serve(prepare)
