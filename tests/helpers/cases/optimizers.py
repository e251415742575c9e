"""Optimizers and what surrounds them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import optimizers as opt

from tests.helpers.cases import case, variants
from tests.helpers.setups import Setup, batches, compiled, features, labels, report, weights


def adamw_with_exclusions() -> opt.Optimizer:
    optimizer = opt.AdamW(0.02, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def train_with(make: Any) -> Any:
    def run(setup: Setup) -> dict[str, Any]:
        model = setup.classifier(make)
        history = model.fit(batches(53, 10), epochs=3, verbose=0)
        return report(model, history, iterations=np.asarray(model.optimizer.iterations))

    return run


variants(
    train_with,
    {
        "sgd_nesterov": (lambda: opt.SGD(0.1, momentum=0.9, nesterov=True),),
        "adam": (lambda: opt.Adam(0.02),),
        "adamw_with_exclusions": (adamw_with_exclusions,),
        "adafactor": (lambda: opt.Adafactor(0.05),),
        "rmsprop": (lambda: opt.RMSprop(0.01, momentum=0.5),),
        "learning_rate_schedule": (lambda: opt.SGD(opt.schedules.ExponentialDecay(0.5, 2, 0.5, staircase=True)),),
        "clipnorm": (lambda: opt.SGD(0.5, clipnorm=0.05),),
        "clipvalue": (lambda: opt.SGD(0.5, clipvalue=0.01),),
        "global_clipnorm": (lambda: opt.SGD(0.5, global_clipnorm=0.1),),
        "ema": (lambda: opt.SGD(0.2, use_ema=True, ema_momentum=0.8),),
        "ema_overwrite": (lambda: opt.SGD(0.2, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=4),),
        "loss_scale_factor": (lambda: opt.SGD(0.2, loss_scale_factor=64.0),),
        "loss_scale_optimizer": (lambda: opt.LossScaleOptimizer(opt.Adam(0.02), dynamic_growth_steps=5),),
    },
)

variants(
    train_with,
    {"lion": (lambda: opt.Lion(0.01),)},
    tolerance=1e-5,
)


@case()
def inf_on_one_replica(setup: Setup) -> dict[str, Any]:
    """Row 7 of the second batch overflows: the whole step is skipped everywhere and the scale halves once."""
    model = setup.classifier(lambda: opt.LossScaleOptimizer(opt.SGD(0.1), initial_scale=1024.0))
    x = features(50)
    x[17] = np.inf
    model.fit(x, labels(50), batch_size=10, epochs=1, shuffle=False, verbose=0)
    return report(
        model,
        scale=np.asarray(model.optimizer.dynamic_scale),
        iterations=np.asarray(model.optimizer.iterations),
    )


def mixed(policy: str) -> Any:
    def run(setup: Setup) -> dict[str, Any]:
        with setup.scope():
            dense = keras.layers.Dense(8, activation="tanh", dtype=policy)
            model = keras.Sequential([keras.Input((6,)), dense, keras.layers.Dense(3, dtype="float32")])
            optimizer = opt.SGD(0.1)
            if policy == "mixed_float16":
                optimizer = opt.LossScaleOptimizer(optimizer, initial_scale=256.0)
            compiled(model, optimizer)
        return report(model, model.fit(batches(53, 10), epochs=2, verbose=0))

    return run


variants(
    mixed,
    {"mixed_float16": ("mixed_float16",)},
    tolerance=2e-3,
    why="float16 has 11 significant bits and each replica rounds its own activations and partial sums",
)
variants(
    mixed,
    {"mixed_bfloat16": ("mixed_bfloat16",)},
    tolerance=2e-2,
    why="bfloat16 has 8 significant bits and each replica rounds its own activations and partial sums",
)


def embedding_with(make: Any) -> Any:
    """Ids repeat within a row, across rows and across replicas."""

    def run(setup: Setup) -> dict[str, Any]:
        with setup.scope():
            ids = keras.Input((3,), dtype="int32")
            hidden = keras.layers.Flatten()(keras.layers.Embedding(20, 4)(ids))
            model = compiled(keras.Model(ids, keras.layers.Dense(3)(hidden)), make)
        x = np.random.RandomState(2).randint(0, 20, (53, 3))
        return report(model, model.fit(x, labels(53), batch_size=10, epochs=3, shuffle=False, verbose=0))

    return run


variants(
    embedding_with,
    {
        "embedding_sgd": (lambda: opt.SGD(0.3),),
        "embedding_momentum": (lambda: opt.SGD(0.3, momentum=0.9),),
        "embedding_adam": (lambda: opt.Adam(0.02),),
        "embedding_clipnorm": (lambda: opt.SGD(0.3, clipnorm=0.05),),
        "embedding_global_clipnorm": (lambda: opt.Adam(0.02, global_clipnorm=0.1),),
    },
)


@case()
def multi_optimizer(setup: Setup) -> dict[str, Any]:
    """One optimizer for kernels, another for biases; reduced once, by the outer one."""
    if not hasattr(opt, "MultiOptimizer"):  # Keras 3.12
        return train_with(lambda: opt.SGD(0.1))(setup)

    def make() -> opt.Optimizer:
        kernels, biases = opt.Adam(0.02, clipnorm=0.05), opt.SGD(0.1)
        return opt.MultiOptimizer(lambda variable: kernels if "kernel" in variable.path else biases)

    model, scaled = setup.classifier(make), setup.classifier(lambda: opt.LossScaleOptimizer(make()))
    history = scaled.fit(batches(53, 10), epochs=2, verbose=0)
    model.fit(batches(53, 10), epochs=2, verbose=0)
    return report(model, history, scaled=weights(scaled))
