"""Options of `compile` and `fit`, and the methods that take one batch."""

from __future__ import annotations

from typing import Any

import keras

from tests.helpers.cases import case, variants
from tests.helpers.cases.inputs import momentum
from tests.helpers.setups import Setup, batches, features, labels, report


def fit_with(options: dict[str, Any], unrolled: int = 1) -> Any:
    def run(setup: Setup) -> dict[str, Any]:
        model = setup.classifier(momentum, **options)
        model.unrolled_steps_per_execution = unrolled
        history = model.fit(batches(53, 8), epochs=2, verbose=0, validation_data=batches(21, 8))
        return report(model, history, predict=model.predict(batches(53, 8), verbose=0))

    return run


variants(
    fit_with,
    {
        "steps_per_execution_3": ({"steps_per_execution": 3},),
        "steps_per_execution_4": ({"steps_per_execution": 4},),
        "unrolled_steps": ({"steps_per_execution": 4}, 2),
        "run_eagerly": ({"run_eagerly": True},),
        "jit_compile_auto": ({"jit_compile": "auto"},),
    },
)


@case()
def several_fits(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    model.fit(batches(53, 10), epochs=1, verbose=0)
    model.fit(features(20), labels(20), batch_size=7, epochs=1, verbose=0, shuffle=False)
    model.optimizer.learning_rate = 0.01
    return report(model, model.fit(batches(53, 10), epochs=2, initial_epoch=1, verbose=0))


@case()
def one_batch_methods(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    logs = [model.train_on_batch(features(n), labels(n)) for n in (9, 8, 9, 1)]
    logs.append(model.train_on_batch(features(9), labels(9), class_weight={0: 1.0, 1: 2.0, 2: 0.5}))
    logs.append(model.test_on_batch(features(9), labels(9)))
    return report(model, logs=logs, predict=model.predict_on_batch(features(5)))


@case()
def reduce_lr_on_plateau(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10.0)
    history = model.fit(batches(53, 10), epochs=4, verbose=0, callbacks=[plateau])
    return report(model, history)


@case()
def early_stopping(setup: Setup) -> dict[str, Any]:
    model = setup.classifier(momentum)
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=10.0, restore_best_weights=True)
    return report(model, model.fit(batches(53, 10), epochs=6, verbose=0, callbacks=[stop]))
