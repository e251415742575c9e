"""`fit` with compressed gradients: `python -m tests.gradients.programs.compression_fit SETUP OUTPUT [--elastic]`.

Keeps weights and states of trainings that are to be equal, what files hold, and the bytes that crossed the wire.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.helpers.setups import Setup
from tests.helpers.tcp_bytes import tcp_bytes
from tfdist._compat.keras_compression import compression_of
from tfdist.gradients import AccumulationOptions, Cast, Compressor, NoCompression, PowerSGD, Quantize, TopK
from tfdist.strategies.compressing import as_compressor

#: 4 batches of 14 rows and one of 3: on two replicas 2 and 1.
ROWS, BATCH = 59, 14
WIDE_STEPS = 8
WIDE: dict[str, Compressor] = {
    "none": NoCompression(),
    "bfloat16": Cast(),
    "power": PowerSGD(rank=4),
    "top": TopK(0.01),
    "4 bits": Quantize(4),
}


def model_of(strategy: Any, make: Callable[[], Any], **options: Any) -> keras.Model:
    """An embedding, whose gradients are rows, a kernel for sequences, another one, and biases."""
    keras.utils.set_random_seed(3)
    with strategy.scope():
        ids = keras.Input((3,), dtype="int32")
        # Of 12 x 96, whose gradient has sizes that TensorFlow doesn't know when it traces.
        hidden = keras.layers.Dense(96)(keras.layers.Embedding(20, 12)(ids))
        hidden = keras.layers.GlobalAveragePooling1D()(hidden)
        hidden = keras.layers.Dense(40, activation="tanh")(hidden)
        model = keras.Model(ids, keras.layers.Dense(3)(hidden))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(make(), loss, **options)
        model.optimizer.build(model.trainable_variables)
    return model


def fit(model: keras.Model, epochs: int, *callbacks: Any) -> keras.Model:
    """On the same rows always."""
    random = np.random.RandomState(2)
    x, y = random.randint(0, 20, (ROWS, 3)), random.randint(0, 3, ROWS)
    model.fit(x, y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def described(strategy: Any, model: keras.Model) -> dict[str, Any]:
    """Weights, and each local replica's states."""
    compression = compression_of(model.optimizer)
    states = {} if compression is None else compression.state.variables
    copies = {k: [one.numpy() for one in strategy.experimental_local_results(v)] for k, v in states.items()}
    return {"weights": [np.asarray(w) for w in model.get_weights()], "states": copies}


#: What each set-up resumes: a compressor takes a core three trainings.
RESUMED: dict[str, dict[str, Compressor]] = {
    "workers2": {"power": PowerSGD(rank=2)},
    "mirrored2": {"top": TopK(0.1, momentum=0.9), "1 bit": Quantize(1)},
}


def resumed(strategy: Any, cases: dict[str, Compressor], folder: Path) -> dict[str, Any]:
    """A training, and the same in two parts, the first of which ends in the middle of an accumulation."""
    found = {}
    for name, compressor in cases.items():
        strategy._compression = compressor
        strategy.gradient_accumulation_steps = AccumulationOptions(2, leftover="carry")
        make = lambda: keras.optimizers.SGD(0.1, clipnorm=1.0)  # noqa: E731
        directory = folder / name.replace(" ", "-")
        found[f"{name}, whole"] = described(strategy, fit(model_of(strategy, make), 4))
        fit(model_of(strategy, make), 2, tfdist.callbacks.Checkpoint(directory))
        last = fit(model_of(strategy, make), 4, tfdist.callbacks.Checkpoint(directory))
        found[f"{name}, resumed"] = described(strategy, last)
    strategy.gradient_accumulation_steps = 1
    return found


def files(strategy: Any, folder: Path) -> dict[str, Any]:
    """What Keras' and TensorFlow's files give back."""
    strategy._compression = PowerSGD(rank=2)
    model = fit(model_of(strategy, lambda: keras.optimizers.Adam(0.01)), 1)
    found = {"saved": described(strategy, model)}
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    other = model_of(strategy, lambda: keras.optimizers.Adam(0.01))
    other.load_weights(folder / "model.weights.h5")
    found["loaded"] = described(strategy, other)
    chief = strategy.worker_index == 0
    # As TensorFlow wants it: all workers save, the others to where nobody reads.
    path = str(folder / ("state" if chief else f"aside-{strategy.worker_index}"))
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(path)
    strategy.agree("written", {})
    third = model_of(strategy, lambda: keras.optimizers.Adam(0.01))
    tf.train.Checkpoint(model=third, optimizer=third.optimizer).read(str(folder / "state"))
    found["read"] = described(strategy, third)
    return found


def elastic(strategy: Any, folder: Path) -> dict[str, Any]:
    """An epoch, in which a checkpoint of another number of replicas may be gone on from."""
    strategy._compression = Quantize(4)
    model = model_of(strategy, lambda: keras.optimizers.SGD(0.1))
    seen: list[Any] = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(described(strategy, model))
    )
    fit(model, strategy.num_replicas_in_sync - 1, tfdist.callbacks.Checkpoint(folder), look)
    return {"before": seen[0], "after": described(strategy, model)}


def lossless(strategy: Any) -> dict[str, Any]:
    """Compression that leaves nothing out, as none, with all that comes after the reduce."""
    found = {}

    def make() -> Any:
        return keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(0.02, global_clipnorm=0.1), initial_scale=64.0, dynamic_growth_steps=3
        )

    for kind, compressor in {"none": None, "all": TopK(1.0)}.items():
        strategy._compression = as_compressor(compressor)
        per_execution = 2 if compressor else 1
        found[kind] = described(strategy, fit(model_of(strategy, make, steps_per_execution=per_execution), 2))[
            "weights"
        ]
    return found


def eager(strategy: Any) -> dict[str, Any]:
    """Eagerly and compiled."""
    found = {}
    strategy._compression = PowerSGD(rank=2, start_step=3)
    for kind in (False, True):
        model = model_of(strategy, lambda: keras.optimizers.Adam(0.02), run_eagerly=kind)
        found["eager" if kind else "compiled"] = described(strategy, fit(model, 1))["weights"]
    return found


def automatic(strategy: Any) -> dict[str, Any]:
    """More steps than are measured."""
    strategy._compression = as_compressor("auto")
    return described(strategy, fit(model_of(strategy, lambda: keras.optimizers.SGD(0.1)), 11))


def wide(strategy: Any) -> dict[str, Any]:
    """Bytes that this process sent in an epoch, and what the strategy says that a step sends."""
    found: dict[str, Any] = {}
    x = np.random.RandomState(0).randn(WIDE_STEPS * 4, 64).astype("float32")
    cases = {**WIDE, "nothing": PowerSGD(rank=4)}
    for name, compressor in cases.items():
        strategy._compression = compressor
        # Of an accumulation that never ends nothing is sent but what is no gradient.
        never = AccumulationOptions(1000, leftover="drop")
        strategy.gradient_accumulation_steps = never if name == "nothing" else 1
        with strategy.scope():
            layers = [keras.layers.Dense(512, activation="relu") for _ in range(3)]
            model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(1)])
            model.compile("sgd", "mse")
        model.fit(x, x[:, :1], batch_size=4, shuffle=False, verbose=0)
        before = tcp_bytes(os.getpid()).sent
        model.fit(x, x[:, :1], batch_size=4, shuffle=False, verbose=0)
        sent = tcp_bytes(os.getpid()).sent - before
        said = strategy.sent_bytes(model.optimizer) if name not in ("none", "nothing") else 0
        found[name] = {"sent": sent, "said": said}
    return found


def main(name: str, output: Path, *, is_elastic: bool) -> None:
    """All of it, or the training whose number of replicas changes."""
    strategy = Setup.named(name).strategy
    if is_elastic:
        (output / f"{name}.pickle").write_bytes(pickle.dumps(elastic(strategy, output / "elastic")))
        return
    found = {"resumed": resumed(strategy, RESUMED[name], output)}
    if strategy.num_workers == 1:
        found["eager"] = eager(strategy)
    else:
        found |= {
            "files": files(strategy, output),
            "lossless": lossless(strategy),
            "auto": automatic(strategy),
            "wide": wide(strategy),
        }
    (output / f"{strategy.worker_index}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), is_elastic="--elastic" in sys.argv)
