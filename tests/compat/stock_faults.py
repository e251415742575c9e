"""The faults of stock TensorFlow and Keras that the shims mend, tried out in a process without tfdist.

Run as `python -m tests.compat.stock_faults`; prints one JSON object {fault: "present" | "gone" | a traceback}. Two
logical CPUs stand for two devices. Each function's docstring says what upstream does; it returns whether it still does.
"""

from __future__ import annotations

import functools
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

REPLICAS = 2


@functools.cache
def two_replicas() -> tf.distribute.MirroredStrategy:
    """One for all faults: the runtime mixes up the collectives of a process' strategies, which is a fault too."""
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(REPLICAS)])


def by_replica(function: Callable[[Any], Any], *values: Any) -> list[np.ndarray]:
    """What `function(value)` returns on each replica, each with its own of `values`."""
    strategy = two_replicas()
    own = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(values[context.replica_id_in_sync_group])
    )

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def step() -> Any:
        return strategy.run(tf.autograph.experimental.do_not_convert(function), args=(own,))

    return [value.numpy() for value in strategy.experimental_local_results(step())]


def fails_with(text: str, function: Callable[[], Any]) -> bool:
    """Whether it raises an error that says `text`; any other error is nobody's known fault."""
    try:
        function()
    except Exception as error:
        if text not in str(error):
            raise
        return True
    return False


def losses_divide_by_replicas() -> bool:
    """A loss is a replica's own mean divided by the number of replicas, whatever rows each of them has."""

    def loss(rows: tf.Tensor) -> tf.Tensor:
        return keras.losses.MeanAbsoluteError()(tf.zeros_like(rows), rows)

    # The mean of 1, 2 and 6 is 3; the mean of 1.5 and 6 is 3.75.
    return sum(by_replica(loss, [[1.0], [2.0]], [[6.0]])) == 3.75


def scalar_losses_are_not_divided() -> bool:
    """A custom loss that returns a scalar is not divided by the number of replicas."""

    class Scalar(keras.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return tf.reduce_mean(y_pred)

    return sum(by_replica(lambda rows: Scalar()(rows, rows), [[1.0]], [[3.0]])) == 4.0


def scalars_count_once_a_replica() -> bool:
    """`metrics.Mean` counts a scalar once a replica and not once a global batch."""
    with two_replicas().scope():
        metric = keras.metrics.Mean()

    def update(value: tf.Tensor) -> tf.Tensor:
        metric.update_state(value)
        return tf.identity(metric.count.value)

    return sum(by_replica(update, 5.0, 7.0)) == 2.0


def weight_after_one_step(make_optimizer: Callable[[], keras.optimizers.Optimizer]) -> list[float]:
    """A weight that starts at 0, on each replica after one step with the gradients 3 and 4 on the two."""
    with two_replicas().scope():
        weight = keras.Variable(0.0)
        optimizer = make_optimizer()
        optimizer.build([weight])

    def step(gradient: tf.Tensor) -> tf.Tensor:
        optimizer.apply([gradient], [weight])
        return tf.identity(weight.value)

    return [float(value) for value in by_replica(step, 3.0, 4.0)]


def clipping_comes_before_the_reduce() -> bool:
    """Gradients are clipped on each replica before they are summed."""
    # min(3, 1) + min(4, 1) = 2; the clipped sum would be 1.
    return weight_after_one_step(lambda: keras.optimizers.SGD(1.0, clipvalue=1.0)) == [-2.0, -2.0]


def ema_overwrite_frequency_fails() -> bool:
    """`ema_overwrite_frequency` calls `extended.update` in replica context, which raises."""
    return fails_with(
        "merge_call",
        lambda: weight_after_one_step(lambda: keras.optimizers.SGD(1.0, use_ema=True, ema_overwrite_frequency=1)),
    )


def replicas_draw_the_same_seeds() -> bool:
    """Every replica draws the same seed, so Dropout masks the same units everywhere."""
    with two_replicas().scope():
        seeds = keras.random.SeedGenerator(7)
    first, second = by_replica(lambda _: seeds.next(), 0, 0)
    return bool((first == second).all())


def moving_averages_drift_apart() -> bool:
    """BatchNormalization's moving statistics become each replica's own."""
    with two_replicas().scope():
        layer = keras.layers.BatchNormalization()
        layer.build([None, 1])

    def step(rows: tf.Tensor) -> tf.Tensor:
        layer(rows, training=True)
        return tf.identity(layer.moving_mean.value)

    first, second = by_replica(step, [[1.0]], [[3.0]])
    return float(first[0]) != float(second[0])


def replicas_share_the_list_of_losses() -> bool:
    """A layer's `add_loss` list is one for all replicas, which take turns at every collective."""
    layer = keras.layers.Dense(1)

    def own_loss(value: tf.Tensor) -> tf.Tensor:
        layer._clear_losses()
        layer.add_loss(value)
        tf.distribute.get_replica_context().all_reduce("sum", value)
        return tf.add_n(layer.losses)

    return [float(loss) for loss in by_replica(own_loss, 1.0, 10.0)] != [1.0, 10.0]


def synchronized_variance_loses_digits() -> bool:
    """The variance of synchronized BatchNormalization is E[x^2] - E[x]^2."""
    values = tf.constant([[10000.0], [10001.0]])
    _, variance = keras.ops.moments(values, axes=[0], synchronized=True)
    return abs(float(variance[0]) - 0.25) > 0.01


def steps_per_execution_fails() -> bool:
    """`steps_per_execution` above 1 fails under MirroredStrategy."""
    with two_replicas().scope():
        model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
        model.compile("sgd", "mse", steps_per_execution=2)
    return fails_with("placeholder", lambda: model.fit(np.ones([8, 2]), np.ones([8, 1]), batch_size=2, verbose=0))


def optimizers_by_name_are_made_outside_of_the_scope() -> bool:
    """`compile` outside of the scope makes optimizers given by name outside of it."""
    strategy = two_replicas()
    with strategy.scope():
        model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model.optimizer._distribution_strategy is not strategy


def symbolic_build_takes_a_batch() -> bool:
    """`fit` under a strategy takes a batch from the data to build the model; generators can't be rewound."""
    with two_replicas().scope():
        model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    trained = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: trained.append(batch))
    batches = ((np.ones([2, 1]), np.ones([2, 1])) for _ in range(4))
    model.fit(batches, verbose=0, callbacks=[count])
    return len(trained) < 4


def instance_keys_fail_in_control_flow() -> bool:
    """Collectives of a function that is called in a conditional have no instance key."""
    strategy = two_replicas()

    @tf.function
    def all_reduce() -> tf.Tensor:
        context = tf.distribute.get_replica_context
        summed = strategy.run(lambda: context().all_reduce("sum", tf.constant(1.0)))
        return strategy.experimental_local_results(summed)[0]

    @tf.function
    def conditional(wanted: tf.Tensor) -> tf.Tensor:
        return tf.cond(wanted, all_reduce, lambda: 0.0)

    return fails_with("placeholder", lambda: conditional(tf.constant(True)))


def every_worker_writes_the_same_files() -> bool:
    """Saving and callbacks that write files know of no chief."""
    package = Path(keras.__file__).parent / "src"
    files = ["callbacks/csv_logger.py", "callbacks/tensorboard.py", "callbacks/backup_and_restore.py"]
    files += ["callbacks/model_checkpoint.py", "saving/saving_api.py", "saving/saving_lib.py"]
    return not any("chief" in (package / file).read_text(encoding="utf-8") for file in files)


FAULTS = (
    losses_divide_by_replicas,
    scalar_losses_are_not_divided,
    scalars_count_once_a_replica,
    clipping_comes_before_the_reduce,
    ema_overwrite_frequency_fails,
    replicas_draw_the_same_seeds,
    moving_averages_drift_apart,
    replicas_share_the_list_of_losses,
    synchronized_variance_loses_digits,
    steps_per_execution_fails,
    optimizers_by_name_are_made_outside_of_the_scope,
    symbolic_build_takes_a_batch,
    instance_keys_fail_in_control_flow,
    every_worker_writes_the_same_files,
)


def look_for(fault: Callable[[], bool]) -> str:
    try:
        return "present" if fault() else "gone"
    except Exception:
        return traceback.format_exc()


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * REPLICAS)
    found = {fault.__name__: look_for(fault) for fault in FAULTS}
    if "tfdist._compat" in sys.modules:
        raise RuntimeError("tfdist was imported: these are not stock Keras' faults")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
