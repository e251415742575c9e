"""A worker of benchmarks/accumulation.py that trains with TensorFlow: tfdist's `fit`, its custom loop, or stock.

python benchmarks/accumulation_tf_task.py PLAN.json
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from accumulation_meter import CLASSES, FEATURES, HIDDEN, Case, Meter, Plan, Results

WORKERS = 2
#: Trains for a number of optimizer steps.
Training = Callable[[int, Meter], None]


class Tick(keras.callbacks.Callback):
    """Tells the meter about the micro-batches of a `fit`."""

    def __init__(self, meter: Meter, batches: int) -> None:
        super().__init__()
        self._meter, self._batches = meter, batches

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._meter.tick(self._batches)


def make_model(strategy: Any, case: Case) -> keras.Model:
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(units, activation="relu") for units in HIDDEN]
    with strategy.scope():
        model = keras.Sequential([keras.Input((FEATURES,)), *hidden, keras.layers.Dense(CLASSES)])
        optimizer = keras.optimizers.Adam(1e-3, gradient_accumulation_steps=case.steps if case.steps > 1 else None)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, steps_per_execution=executed_together(case))
    return model


def executed_together(case: Case) -> int:
    """Micro-batches to one call of the training function."""
    return case.steps if case.engine == "fit in executions" else 1


def batches(rows: int) -> tf.data.Dataset:
    random = np.random.RandomState(0)
    x, y = random.rand(rows, FEATURES).astype("float32"), random.randint(0, CLASSES, rows)
    return tf.data.Dataset.from_tensors((x, y)).repeat()


def fit_training(strategy: Any, case: Case, rows: int) -> Training:
    model, data = make_model(strategy, case), batches(rows)

    def train(optimizer_steps: int, meter: Meter) -> None:
        model.fit(
            data,
            steps_per_epoch=optimizer_steps * case.steps,
            verbose=0,
            callbacks=[Tick(meter, executed_together(case))],
        )

    return train


def loop_training(strategy: Any, case: Case, rows: int) -> Training:
    model = make_model(strategy, case)
    optimizer = model.optimizer
    with strategy.scope():
        optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.nn.compute_average_loss(loss_of(y, model(x, training=True)), global_batch_size=rows)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    @tf.function
    def run(batch: Any) -> None:
        strategy.run(step, args=batch)

    def train(optimizer_steps: int, meter: Meter) -> None:
        data = iter(strategy.experimental_distribute_dataset(batches(rows)))
        for _ in range(optimizer_steps * case.steps):
            run(next(data))
            meter.tick()

    return train


def strategies(cases: list[Case]) -> tuple[Any, Any]:
    """The cluster's strategy, and one of this worker alone."""
    if any(case.engine == "stock" for case in cases):
        return tf.distribute.MultiWorkerMirroredStrategy(), tf.distribute.OneDeviceStrategy("CPU:0")
    import tfdist

    return tfdist.MultiWorkerMirroredStrategy(), tfdist.OneDeviceStrategy("CPU:0")


def main() -> None:
    plan = Plan.read(sys.argv[1])
    tf.config.threading.set_intra_op_parallelism_threads(1)
    cluster, one_device = strategies(plan.cases)
    trainings = {}
    for case in plan.cases:
        make = fit_training if case.engine.startswith("fit") else loop_training
        trainings[case] = make(cluster, case, case.rows), make(one_device, case, case.rows // WORKERS)
        for train in trainings[case]:
            train(2, Meter("", 1))
    results = Results()
    for _ in range(plan.rounds):
        for case, (train, train_alone) in trainings.items():
            alone, together = Meter(plan.interface, case.steps), Meter(plan.interface, case.steps)
            train_alone(plan.optimizer_steps, alone)
            train(plan.optimizer_steps, together)
            results.add(case, together, alone)
    results.write(plan.output)


if __name__ == "__main__":
    main()
