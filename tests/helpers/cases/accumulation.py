"""Gradient accumulation: one device trains on whole batches, the others on their micro-batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import optimizers as opt

from tests.helpers.cases import case, variants
from tests.helpers.setups import Setup, compiled, features, labels, report, weights
from tfdist.gradients import AccumulationOptions, accumulate, flush, norm_above

#: Float32 rounding of gradients that were added up in another order.
TOLERANCE = 1e-6
Make = Callable[..., opt.Optimizer]


@contextlib.contextmanager
def accumulating(setup: Setup, make: Make, steps: Any, door: str = "strategy") -> Iterator[Make]:
    """A function that makes the optimizer, which accumulates everywhere but on the one device."""
    if setup.is_reference:
        yield make
    elif door == "keras" or setup.is_stock:
        steps = getattr(steps, "steps", steps)
        yield make if steps == 1 else lambda: make(gradient_accumulation_steps=steps)
    elif setup.strategy is None:
        yield lambda: accumulate(make(), steps)
    else:
        setup.strategy.gradient_accumulation_steps = steps
        try:
            yield make
        finally:
            setup.strategy.gradient_accumulation_steps = 1


def grouped(setup: Setup, sizes: Sequence[int], steps: int) -> list[int]:
    """Rows of the batches: of micro-batches, or of each `steps` of them together on one device."""
    if not setup.is_reference:
        return list(sizes)
    return [sum(sizes[start : start + steps]) for start in range(0, len(sizes), steps)]


def cut(sizes: Sequence[int], *arrays: np.ndarray) -> tf.data.Dataset:
    """Batches of these numbers of rows."""
    ends = np.cumsum(sizes)
    parts = [tuple(array[end - size : end] for array in arrays) for size, end in zip(sizes, ends, strict=True)]
    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in arrays)
    data = tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=signature)
    return data.apply(tf.data.experimental.assert_cardinality(len(sizes)))


#: 47 rows: with K = 3 two optimizer steps an epoch, the second of two micro-batches, one of them ragged.
SIZES = (10, 10, 10, 10, 7)


def train_with(make: Make, door: str = "strategy", steps: int = 3, **compile_options: Any) -> Any:
    def run(setup: Setup) -> dict[str, Any]:
        with accumulating(setup, make, steps, door) as make_optimizer:
            model = setup.classifier(make_optimizer, **compile_options)
            data = cut(grouped(setup, SIZES, steps), features(47), labels(47))
            history = model.fit(data, epochs=3, verbose=0)
            return report(model, history, iterations=np.asarray(model.optimizer.iterations))

    return run


def schedule() -> Any:
    return opt.schedules.ExponentialDecay(0.5, 2, 0.5, staircase=True)


def adamw(**options: Any) -> opt.Optimizer:
    optimizer = opt.AdamW(0.02, weight_decay=0.1, **options)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def ema_overwrite(**options: Any) -> opt.Optimizer:
    return opt.SGD(0.2, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=2, **options)


def loss_scaled(**options: Any) -> opt.Optimizer:
    return opt.LossScaleOptimizer(opt.Adam(0.02, **options), dynamic_growth_steps=3)


OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda **o: opt.SGD(0.2, **o),
    "nesterov": lambda **o: opt.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01, **o),
    "adam": lambda **o: opt.Adam(0.02, **o),
    "adamw": adamw,
    "adafactor": lambda **o: opt.Adafactor(0.05, **o),
    "lion": lambda **o: opt.Lion(0.01, **o),
    "rmsprop": lambda **o: opt.RMSprop(0.01, momentum=0.5, **o),
    "clipnorm": lambda **o: opt.SGD(0.5, clipnorm=0.05, **o),
    "clipvalue": lambda **o: opt.SGD(0.5, clipvalue=0.01, **o),
    "global_clipnorm": lambda **o: opt.SGD(0.5, global_clipnorm=0.1, **o),
    "schedule": lambda **o: opt.SGD(schedule(), **o),
    "ema": lambda **o: opt.SGD(0.2, use_ema=True, ema_momentum=0.8, **o),
    "ema_overwrite": ema_overwrite,
    "loss_scale_factor": lambda **o: opt.SGD(0.2, loss_scale_factor=64.0, **o),
    "loss_scale_optimizer": loss_scaled,
}
variants(train_with, {f"accumulate_{name}": (make,) for name, make in OPTIMIZERS.items()}, tolerance=TOLERANCE)


def train_eagerly() -> Any:
    return train_with(OPTIMIZERS["adam"], run_eagerly=True)


variants(train_eagerly, {"accumulate_run_eagerly": ()}, tolerance=TOLERANCE, two_replicas_will_do=True)


def train_with_keras_setting(name: str) -> Any:
    def run(setup: Setup) -> dict[str, Any]:
        if setup.name == "no_strategy":  # Keras' own, which is not tfdist's business there
            return train_with(OPTIMIZERS[name])(setup)
        return train_with(OPTIMIZERS[name], door="keras")(setup)

    return run


variants(
    train_with_keras_setting,
    {f"accumulate_keras_{name}": (name,) for name in ("adam", "schedule", "ema_overwrite", "loss_scale_optimizer")},
    tolerance=TOLERANCE,
    two_replicas_will_do=True,
)


def executions(steps_per_execution: int, steps: int) -> Any:
    def run(setup: Setup) -> dict[str, Any]:
        with accumulating(setup, OPTIMIZERS["nesterov"], steps) as make:
            # An execution of one device would be `steps` times as many rows.
            per_execution = 1 if setup.is_reference else steps_per_execution
            model = setup.classifier(make, steps_per_execution=per_execution)
            data = cut(grouped(setup, SIZES, steps), features(47), labels(47))
            return report(model, model.fit(data, epochs=3, verbose=0))

    return run


variants(
    executions,
    {f"accumulate_{k}_in_executions_of_{n}": (n, k) for n in (1, 3, 4) for k in (1, 4)},
    tolerance=TOLERANCE,
    two_replicas_will_do=True,
)


@case(tolerance=TOLERANCE)
def accumulate_validation(setup: Setup) -> dict[str, Any]:
    """Validation sees the weights after the leftovers' step."""
    with accumulating(setup, OPTIMIZERS["nesterov"], 3) as make:
        model = setup.classifier(make)
        data = cut(grouped(setup, SIZES, 3), features(47), labels(47))
        return report(model, model.fit(data, epochs=3, verbose=0, validation_data=(features(20), labels(20))))


@case(tolerance=TOLERANCE)
def accumulate_inf(setup: Setup) -> dict[str, Any]:
    """One row of the second micro-batch overflows: one update of three is skipped, the scale halves once."""
    with accumulating(setup, lambda: opt.LossScaleOptimizer(opt.SGD(0.1), initial_scale=1024.0), 2) as make:
        model = setup.classifier(make)
        x = features(60)
        x[17] = np.inf
        model.fit(cut(grouped(setup, [10] * 6, 2), x, labels(60)), verbose=0)
        optimizer = model.optimizer
        return report(model, scale=np.asarray(optimizer.dynamic_scale), iterations=np.asarray(optimizer.iterations))


@case(tolerance=TOLERANCE)
def accumulate_unequal(setup: Setup) -> dict[str, Any]:
    """Micro-batches of 1 to 13 rows, fewer than replicas too, and sample weights."""
    sizes = [7, 13, 1, 2, 11, 3, 10]
    with accumulating(setup, OPTIMIZERS["adam"], 3) as make:
        model = setup.classifier(make, weighted_metrics=["accuracy"])
        sample_weight = np.random.RandomState(3).rand(47).astype("float32")
        data = cut(grouped(setup, sizes, 3), features(47), labels(47), sample_weight)
        return report(model, model.fit(data, epochs=3, verbose=0))


@case(tolerance=TOLERANCE, two_replicas_will_do=True)
def accumulate_class_weight(setup: Setup) -> dict[str, Any]:
    with accumulating(setup, OPTIMIZERS["adam"], 3) as make:
        model = setup.classifier(make)
        data = cut(grouped(setup, SIZES, 3), features(47), labels(47))
        return report(model, model.fit(data, epochs=3, verbose=0, class_weight={0: 1.0, 1: 3.0, 2: 0.0}))


def embedding_with(make: Make) -> Any:
    def run(setup: Setup) -> dict[str, Any]:
        with accumulating(setup, make, 3) as make_optimizer, setup.scope():
            ids = keras.Input((3,), dtype="int32")
            hidden = keras.layers.Flatten()(keras.layers.Embedding(20, 4)(ids))
            model = compiled(keras.Model(ids, keras.layers.Dense(3)(hidden)), make_optimizer)
            x = np.random.RandomState(2).randint(0, 20, (47, 3)).astype("int32")
            return report(model, model.fit(cut(grouped(setup, SIZES, 3), x, labels(47)), epochs=3, verbose=0))

    return run


variants(
    embedding_with,
    {f"accumulate_embedding_{name}": (OPTIMIZERS[name],) for name in ("sgd", "adam", "global_clipnorm")},
    tolerance=TOLERANCE,
)


@case(tolerance=TOLERANCE)
def accumulate_without_gradient(setup: Setup) -> dict[str, Any]:
    """A weight that the loss doesn't use keeps its value; a layer that is frozen between fits keeps its own."""
    with accumulating(setup, OPTIMIZERS["adam"], 3) as make, setup.scope():
        inputs = keras.Input((6,))
        first, second = keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(3)
        model = keras.Model(inputs, second(first(inputs)))
        model.add_weight(shape=(2,), initializer="ones", name="unused")
        optimizer = make()
        data = cut(grouped(setup, SIZES, 3), features(47), labels(47))
        for trainable in (True, False, True):
            first.trainable = trainable
            compiled(model, optimizer)
            model.fit(data, epochs=2, verbose=0)
        return report(model)


@case(tolerance=TOLERANCE)
def accumulate_multi_optimizer(setup: Setup) -> dict[str, Any]:
    """One optimizer for kernels, another for the rest."""
    if not hasattr(opt, "MultiOptimizer"):
        return {}
    with accumulating(setup, make_multi_optimizer, 3) as make:
        model = setup.classifier(make)
        return report(model, model.fit(cut(grouped(setup, SIZES, 3), features(47), labels(47)), epochs=3, verbose=0))


def make_multi_optimizer() -> Any:
    chosen = opt.OptimizerMap(opt.Adam(0.02))
    chosen[".*bias"] = opt.SGD(0.1)
    return opt.MultiOptimizer(chosen)


@case(tolerance=TOLERANCE)
def accumulate_masked(setup: Setup) -> dict[str, Any]:
    """Tokens weigh alike whatever micro-batch they are in; logs are means over micro-batches and not compared."""
    with accumulating(setup, OPTIMIZERS["sgd"], 3) as make, setup.scope():
        ids = keras.Input((5,), dtype="int32")
        hidden = keras.layers.Embedding(12, 4, mask_zero=True)(ids)
        model = compiled(keras.Model(ids, keras.layers.Dense(3)(hidden)), make, metrics=[])
        random = np.random.RandomState(5)
        lengths = random.randint(0, 6, (47, 1))
        x = np.where(np.arange(5) < lengths, random.randint(1, 12, (47, 5)), 0).astype("int32")
        model.fit(cut(grouped(setup, SIZES, 3), x, random.randint(0, 3, (47, 5))), epochs=3, verbose=0)
        return report(model)


@case(tolerance=TOLERANCE, two_replicas_will_do=True)
def accumulate_two_outputs(setup: Setup) -> dict[str, Any]:
    """Two losses and an activity regularizer."""
    with accumulating(setup, OPTIMIZERS["adam"], 3) as make, setup.scope():
        inputs = keras.Input((6,))
        hidden = keras.layers.Dense(8, activation="tanh", activity_regularizer="l2")(inputs)
        model = keras.Model(inputs, [keras.layers.Dense(3)(hidden), keras.layers.Dense(1)(hidden)])
        losses = [keras.losses.SparseCategoricalCrossentropy(from_logits=True), "mse"]
        model.compile(make(), losses, loss_weights=[1.0, 0.3])

        def data() -> tf.data.Dataset:
            flat = cut(grouped(setup, SIZES, 3), features(47), labels(47), features(47)[:, :1])
            return flat.map(lambda x, classes, value: (x, (classes, value)))

        history = model.fit(data(), epochs=3, verbose=0).history
        # Keras averages the losses of outputs over batches, whatever their rows.
        return report(model, loss=np.asarray(history["loss"]))


@case(tolerance=TOLERANCE, two_replicas_will_do=True)
def accumulate_carry(setup: Setup) -> dict[str, Any]:
    """Leftovers wait for the next epoch: 15 micro-batches in 3 epochs are 3 steps of 4, and 3 are left."""
    sizes = [8] * 5
    options = AccumulationOptions(4, leftover="carry")
    with accumulating(setup, OPTIMIZERS["nesterov"], options) as make:
        model = setup.classifier(make)
        if setup.is_reference:
            x, y = np.tile(features(40), (3, 1))[:96], np.tile(labels(40), 3)[:96]
            model.fit(cut([32] * 3, x, y), verbose=0)
        else:
            model.fit(cut(sizes, features(40), labels(40)), epochs=3, verbose=0)
        return report(model, iterations=np.asarray(model.optimizer.iterations))


@case(tolerance=TOLERANCE, two_replicas_will_do=True)
def accumulate_drop(setup: Setup) -> dict[str, Any]:
    """The fifth micro-batch of each epoch is left out."""
    with accumulating(setup, OPTIMIZERS["nesterov"], AccumulationOptions(2, leftover="drop")) as make:
        model = setup.classifier(make)
        sizes = [16, 16] if setup.is_reference else [8] * 5
        model.fit(cut(sizes, features(40), labels(40)), epochs=3, verbose=0)
        return report(model, iterations=np.asarray(model.optimizer.iterations))


@case(tolerance=TOLERANCE, two_replicas_will_do=True)
def accumulate_changed_between_fits(setup: Setup) -> dict[str, Any]:
    """K = 1, 2, 4, 1, without compiling again; on Keras' optimizer where there is no strategy to set it on."""
    with accumulating(setup, OPTIMIZERS["adam"], 1) as make:
        model = setup.classifier(make)
        for steps in (1, 2, 4, 1):
            if setup.strategy is not None:
                setup.strategy.gradient_accumulation_steps = steps
            elif not setup.is_reference:
                model.optimizer.gradient_accumulation_steps = None if steps == 1 else steps
            model.fit(cut(grouped(setup, [8] * 6, steps), features(48), labels(48)), verbose=0)
        return report(model, iterations=np.asarray(model.optimizer.iterations))


@case(tolerance=TOLERANCE, two_replicas_will_do=True)
def accumulate_growing(setup: Setup) -> dict[str, Any]:
    """K from a schedule: optimizer steps 0 and 1 of one micro-batch, steps 2 and 3 of three, then of four."""
    steps = opt.schedules.PiecewiseConstantDecay([1, 3], [1.0, 3.0, 4.0])
    with accumulating(setup, OPTIMIZERS["adam"], steps) as make:
        model = setup.classifier(make)
        sizes = [4, 4, 12, 12, 16, 16] if setup.is_reference else [4] * 16
        history = model.fit(cut(sizes, features(64), labels(64)), verbose=0)
        return report(model, history, iterations=np.asarray(model.optimizer.iterations))


@case(tolerance=TOLERANCE, two_replicas_will_do=True)
def accumulate_skip(setup: Setup) -> dict[str, Any]:
    """A batch whose gradient is far too large changes nothing and is counted; one device never sees it."""
    options = AccumulationOptions(2, skip_rules=[norm_above(100.0)])
    with accumulating(setup, OPTIMIZERS["adam"], options) as make:
        with setup.scope():
            model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
            compiled(model, make, metrics=[])
        x, y = features(60), labels(60)
        if setup.is_reference:
            keep = np.r_[0:20, 40:60]
            model.fit(cut([20, 20], x[keep], y[keep]), verbose=0)
            skipped = [1]
        else:
            x[33] *= 1e5
            skipped = model.fit(cut([10] * 6, x, y), verbose=0).history["skipped_norm_above"]
        return report(model, skipped=np.asarray(skipped), iterations=np.asarray(model.optimizer.iterations))


@case(tolerance=TOLERANCE, two_replicas_will_do=True)
def accumulate_train_on_batch(setup: Setup) -> dict[str, Any]:
    with accumulating(setup, OPTIMIZERS["adam"], 3) as make:
        model = setup.classifier(make)
        for x, y in cut(grouped(setup, SIZES, 3), features(47), labels(47)).as_numpy_iterator():
            model.train_on_batch(x, y)
        flush(model.optimizer)
        return report(model)


@case(tolerance=TOLERANCE, two_replicas_will_do=True)
def accumulate_custom_loop(setup: Setup) -> dict[str, Any]:
    """A loop of the user's own, with a Keras loss, and a leftover."""
    with accumulating(setup, OPTIMIZERS["adam"], 3) as make:
        model = setup.classifier(make)
        optimizer, loss_of = model.optimizer, model.loss

        def step(x: Any, y: Any) -> None:
            with tf.GradientTape() as tape:
                loss = loss_of(y, model(x, training=True))
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

        @tf.function
        def run(batch: Any) -> None:
            if setup.strategy is None:
                step(*batch)
            else:
                setup.strategy.run(step, args=batch)

        # Without a strategy nobody counts rows, and micro-batches count alike.
        data = cut(grouped(setup, [10] * 5, 3), features(50), labels(50))
        if setup.strategy is not None:
            data = setup.strategy.experimental_distribute_dataset(data)
        for batch in data:
            run(batch)
        flush(optimizer)
        return {"weights": weights(model)}


@case(
    tolerance=4e-3,
    why="bfloat16 weights have 8 significant bits, and each replica rounds its own activations",
)
def accumulate_bfloat16(setup: Setup) -> dict[str, Any]:
    options = AccumulationOptions(3, dtype="float32")
    with accumulating(setup, OPTIMIZERS["sgd"], options) as make, setup.scope():
        layers = [keras.layers.Dense(8, activation="tanh", dtype="bfloat16"), keras.layers.Dense(3, dtype="float32")]
        model = compiled(keras.Sequential([keras.Input((6,)), *layers]), make)
        model.fit(cut(grouped(setup, SIZES, 3), features(47), labels(47)), epochs=2, verbose=0)
        return {"weights": weights(model).astype("float32")}
