"""Mixed-up use: each wrong call must raise before the first step, naming what was received and the remedy."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import keras

import tfdist
from tests.helpers.setups import Setup, batches, compiled, features, labels


def refuses(error: type[Exception], pattern: str, call: Callable[[], object]) -> None:
    """`call` raises `error` with a message that has `pattern` in it."""
    try:
        call()
    except error as raised:
        assert re.search(pattern, str(raised)), f"Expected: {pattern!r}. Received: {raised}"
    else:
        raise AssertionError(f"nothing was raised where {pattern!r} was expected")


def small() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])


def model_made_outside(setup: Setup) -> None:
    model = compiled(small())
    with setup.scope():
        refuses(ValueError, r"made outside of the strategy's scope.*no strategy.*in the scope", lambda: fit(model))


def optimizer_made_outside(setup: Setup) -> None:
    optimizer = keras.optimizers.Adam()
    with setup.scope():
        model = compiled(small(), optimizer)
    refuses(ValueError, r"optimizer was made outside.*optimizer=Adam.*strategy\.scope\(\)", lambda: fit(model))
    with setup.scope():
        scaled = compiled(small(), keras.optimizers.LossScaleOptimizer(optimizer))
    refuses(ValueError, r"optimizer=Adam", lambda: fit(scaled))


def other_strategys_model(setup: Setup) -> None:
    other = tfdist.MirroredStrategy(["CPU:0"])
    with other.scope():
        model = compiled(small())
    with setup.scope():
        refuses(ValueError, r"made under another MirroredStrategy", lambda: fit(model))


def too_little_data(setup: Setup) -> None:
    model = setup.classifier()
    refuses(ValueError, r"batch_size=1\b", lambda: model.fit(features(8), labels(8), batch_size=1, verbose=0))
    refuses(ValueError, r"number of rows=1\b", lambda: model.fit(features(1), labels(1), verbose=0))
    refuses(ValueError, r"batch size=1\b", lambda: model.fit(batches(8, 1), verbose=0))


def xla(setup: Setup) -> None:
    model = setup.classifier(jit_compile=True)
    refuses(ValueError, r"XLA cannot compile.*jit_compile=True.*'auto'", lambda: fit(model))
    refuses(ValueError, r"XLA cannot compile", lambda: model.predict(features(8), verbose=0))
    refuses(ValueError, r"XLA cannot compile", lambda: model.train_on_batch(features(8), labels(8)))


def accumulation_asked_for_twice(setup: Setup) -> None:
    twice = r"gradient_accumulation_steps=2 on the strategy.*gradient_accumulation_steps=4 on the optimizer.*Remove"
    setup.strategy.gradient_accumulation_steps = 2
    refuses(ValueError, twice, lambda: setup.classifier(lambda: keras.optimizers.SGD(gradient_accumulation_steps=4)))
    model = setup.classifier(lambda: keras.optimizers.SGD(gradient_accumulation_steps=2))
    fit(model)
    setup.strategy.gradient_accumulation_steps = 4  # not that model's affair, until it is trained again
    refuses(ValueError, r"=4 on the strategy.*=2 on the optimizer", lambda: fit(model))
    setup.strategy.gradient_accumulation_steps = 1
    fit(model)


def accumulation_in_parts(setup: Setup) -> None:
    """Optimizers that update together must accumulate together."""
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        return
    chosen = keras.optimizers.OptimizerMap(keras.optimizers.SGD(gradient_accumulation_steps=2))
    chosen[".*bias"] = keras.optimizers.SGD(gradient_accumulation_steps=3)
    refuses(
        ValueError, r"accumulate together", lambda: setup.classifier(lambda: keras.optimizers.MultiOptimizer(chosen))
    )


def no_number_of_steps(setup: Setup) -> None:
    for wrong, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError), ("4", TypeError), (True, TypeError)):
        refuses(error, r"gradient_accumulation_steps", lambda wrong=wrong: steps_of(setup, wrong))


def steps_of(setup: Setup, steps: Any) -> None:
    setup.strategy.gradient_accumulation_steps = steps


def compile_outside_works(setup: Setup) -> None:
    """Names given to `compile` are made in the model's scope, wherever it is called."""
    with setup.scope():
        model = small()
    fit(compiled(model, "adam"))


def fit(model: keras.Model) -> None:
    model.fit(features(8), labels(8), batch_size=4, verbose=0)


if __name__ == "__main__":
    here = Setup.named(sys.argv[1])
    for check in (
        model_made_outside,
        optimizer_made_outside,
        other_strategys_model,
        too_little_data,
        xla,
        accumulation_asked_for_twice,
        accumulation_in_parts,
        no_number_of_steps,
        compile_outside_works,
    ):
        check(here)
        print(check.__name__, "refused")
