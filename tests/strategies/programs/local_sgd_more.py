"""What tests of LocalSGDStrategy need beside training.

`python -m tests.strategies.programs.local_sgd_more OUTPUT DEVICES NAME...` runs the functions of those names.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tests.strategies.programs.local_sgd import make_strategy
from tests.strategies.programs.local_sgd_cases import flat, loss, nesterov, sgd
from tfdist.errors import WorkersDisagreeError
from tfdist.gradients import PowerSGD, Quantize, TopK
from tfdist.gradients.averaging import AveragingOptions

ROWS, BATCH_SIZE = 32, 8


def data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(0)
    return random.randn(ROWS, 6).astype("float32"), random.randint(0, 3, ROWS)


def build(strategy: Any, optimizer: Any = sgd, *layers: Any, **compile_options: Any) -> keras.Model:
    keras.utils.set_random_seed(7)
    with strategy.scope():
        hidden = [keras.layers.Dense(8, activation="tanh", name="hidden"), *[layer() for layer in layers]]
        model = keras.Sequential([keras.Input((6,)), *hidden, keras.layers.Dense(3, name="classes")])
        model.compile(optimizer(), loss(), **compile_options)
    return model


def fit(model: keras.Model, *callbacks: Any) -> Any:
    return model.fit(*data(), batch_size=BATCH_SIZE, shuffle=False, verbose=0, callbacks=list(callbacks))


class BeforeTheEnd(keras.callbacks.Callback):
    """Every local replica's weights after the last step, before they are averaged."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        strategy = self.model.distribute_strategy
        copies = [strategy.experimental_local_results(v.value) for v in self.model.trainable_variables]
        self.weights = [[copy.numpy() for copy in replica] for replica in zip(*copies, strict=True)]


def compressed(strategy: tfdist.LocalSGDStrategy) -> dict[str, Any]:
    """Weights before training, of each local replica before averaging, and after it, by how it travelled."""
    found: dict[str, Any] = {}
    for how in (None, "bfloat16", "int8"):
        strategy.averaging_options = AveragingOptions(sync_every_steps="epoch", compression=how)
        model, seen = build(strategy, lambda: keras.optimizers.Adam(0.02)), BeforeTheEnd()
        found["before"] = model.get_weights()
        fit(model, seen)
        found["replicas"], found[str(how)] = seen.weights, model.get_weights()
    return found


class Epochs(BeforeTheEnd):
    """Weights before each epoch and after the last, and every local replica's before they are averaged."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.averaged, self.apart = [self.model.get_weights()], []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.apart.append(self.weights)
        self.averaged.append(self.model.get_weights())


def owing(strategy: tfdist.LocalSGDStrategy) -> dict[str, Any]:
    """Three averagings with four bits and what they leave out, and with a compressor that leaves nothing out."""
    found: dict[str, Any] = {}
    for name, how in {"4 bits": Quantize(4, min_size=1), "all": TopK(1.0, min_size=1), "none": None}.items():
        strategy.averaging_options = AveragingOptions(sync_every_steps="epoch", compression=how)
        model, seen = build(strategy, lambda: keras.optimizers.Adam(0.02)), Epochs()
        model.fit(*data(), batch_size=BATCH_SIZE, epochs=3, shuffle=False, verbose=0, callbacks=[seen])
        found[name] = {"averaged": seen.averaged, "apart": seen.apart}
    return found


def own_loop(strategy: tfdist.LocalSGDStrategy) -> dict[str, np.ndarray]:
    """A custom loop, whose loss is divided by the global batch as tf.distribute wants it, and `fit`."""
    strategy.averaging_options = AveragingOptions(sync_every_steps=3, outer_optimizer=nesterov)
    fitted = build(strategy)
    fit(fitted)
    looped = build(strategy)
    each_row = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(each_row(y, looped(x, training=True))) / BATCH_SIZE
        gradients = tape.gradient(value, looped.trainable_variables)
        looped.optimizer.apply(gradients, looped.trainable_variables)

    train = tf.function(lambda batch: strategy.run(step, args=batch))
    batches = tf.data.Dataset.from_tensor_slices(data()).batch(BATCH_SIZE, drop_remainder=True)
    for batch in strategy.experimental_distribute_dataset(batches):
        train(batch)
    strategy.average()
    return {"fit": flat(fitted.get_weights()), "loop": flat(looped.get_weights())}


class Writes(keras.callbacks.Callback):
    """A TensorFlow checkpoint in the middle of a period, by every worker."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            tf.train.Checkpoint(model=self.model, optimizer=self.model.optimizer).write(self.prefix)


def checkpoint(strategy: tfdist.LocalSGDStrategy) -> dict[str, np.ndarray]:
    """Training that writes a checkpoint after two of four batches, and that goes on from it with the other two.

    The chief still has a model that the other workers have no more: what only one has is not gathered.
    """
    return _checkpointed(strategy, None)


def checkpoint_owing(strategy: tfdist.LocalSGDStrategy) -> dict[str, np.ndarray]:
    """The same with a compressor, of which replicas owe something when the checkpoint is written."""
    return _checkpointed(strategy, PowerSGD(1, min_size=1, min_ratio=1))


def _checkpointed(strategy: tfdist.LocalSGDStrategy, compression: Any) -> dict[str, np.ndarray]:
    strategy.averaging_options = AveragingOptions(sync_every_steps=3, outer_optimizer=nesterov, compression=compression)
    old = build(strategy, keras.optimizers.Adam)
    fit(old)
    if not strategy.is_chief:
        del old
    with tempfile.TemporaryDirectory() as folder:
        whole = build(strategy, keras.optimizers.Adam)
        fit(whole, Writes(f"{folder}/checkpoint"))
        again = build(strategy, keras.optimizers.Adam)
        again.train_on_batch(*(part[:BATCH_SIZE] for part in data()))  # to be forgotten
        status = tf.train.Checkpoint(model=again, optimizer=again.optimizer).read(f"{folder}/checkpoint")
        status.assert_existing_objects_matched()
    for begin in (2 * BATCH_SIZE, 3 * BATCH_SIZE):
        again.train_on_batch(*(part[begin : begin + BATCH_SIZE] for part in data()))
    strategy.average()
    return {"whole": flat(whole.get_weights()), "again": flat(again.get_weights())}


class Crooked(keras.optimizers.SGD):
    """Moves the second variable farther on the last replica than on the others."""

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        context = tf.distribute.get_replica_context()
        is_last = tf.equal(context.replica_id_in_sync_group, context.num_replicas_in_sync - 1)
        grads = [*grads[:1], grads[1] * tf.where(is_last, 1.5, 1.0), *grads[2:]]
        super().apply(grads, trainable_variables)


def difference(strategy: tfdist.LocalSGDStrategy) -> dict[str, str]:
    """What is said of replicas that differ: in an averaging inside a step, at an epoch's end, beside steps."""
    return {
        "step": _difference(strategy, sync_every_steps=2),
        "epoch": _difference(strategy, sync_every_steps="epoch"),
        "overlap": _difference(strategy, sync_every_steps=2, overlap_steps=1),
        "unverified": _difference(strategy, sync_every_steps=2, verify_equal=False),
    }


def _difference(strategy: tfdist.LocalSGDStrategy, **options: Any) -> str:
    strategy.averaging_options = AveragingOptions(outer_optimizer=lambda: Crooked(1.0), **options)
    try:
        fit(build(strategy))
    except WorkersDisagreeError as error:
        return str(error)
    return ""


def refusals(strategy: tfdist.LocalSGDStrategy) -> dict[str, str]:
    """What is said of what can't work."""

    def synchronized() -> Any:
        return keras.layers.BatchNormalization(synchronized=True)

    def scaled() -> Any:
        return keras.optimizers.LossScaleOptimizer(sgd())

    def accumulating() -> Any:
        return keras.optimizers.SGD(gradient_accumulation_steps=2)

    def set_accumulation() -> None:
        strategy.gradient_accumulation_steps = 2

    def warmed_up_loop() -> None:
        strategy.averaging_options = AveragingOptions(sync_every_steps=2, warmup_steps=2)
        own_loop_of = build(strategy)
        zeros = [tf.zeros(v.shape) for v in own_loop_of.trainable_variables]
        strategy.run(lambda: own_loop_of.optimizer.apply(zeros, own_loop_of.trainable_variables))

    def overlapping_loop() -> None:
        strategy.averaging_options = AveragingOptions(sync_every_steps=2, overlap_steps=1)
        looped = build(strategy)
        zeros = [tf.zeros(v.shape) for v in looped.trainable_variables]
        strategy.run(lambda: looped.optimizer.apply(zeros, looped.trainable_variables))

    strategy.averaging_options = AveragingOptions(sync_every_steps=2)
    tries: dict[str, Callable[[], Any]] = {
        "synchronized": lambda: fit(build(strategy, sgd, synchronized)),
        "loss scale": lambda: fit(build(strategy, scaled)),
        "accumulation": lambda: fit(build(strategy, accumulating)),
        "attached": lambda: fit(build(strategy, lambda: tfdist.gradients.accumulate(sgd(), 2))),
        "strategy's accumulation": set_accumulation,
        "xla": lambda: fit(build(strategy, jit_compile=True)),
        "warm-up": warmed_up_loop,
        "overlap": overlapping_loop,
    }
    return {name: _said(function) for name, function in tries.items()}


def _said(function: Callable[[], Any]) -> str:
    try:
        function()
    except ValueError as error:
        return str(error)
    return ""


def disagreement(strategy: tfdist.LocalSGDStrategy) -> dict[str, str]:
    """Workers with other options."""
    strategy.averaging_options = AveragingOptions(sync_every_steps=2 + strategy.worker_index)
    try:
        fit(build(strategy))
    except WorkersDisagreeError as error:
        return {"said": str(error)}
    return {"said": ""}


def main(output: Path, devices: int, names: list[str]) -> None:
    strategy = make_strategy(devices, sync_every_steps=1)
    found = {name: globals()[name](strategy) for name in names}
    (output / f"{strategy.worker_index}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
