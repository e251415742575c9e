"""Training with gradients in buckets: `python -m tests.strategies.programs.collectives FOLDER VARIANT...` on workers.

Each task keeps FOLDER/RANK.pickle: weights by variant, and the all-reduces of a train function in their order.
"""

from __future__ import annotations

import dataclasses
import pickle
import resource
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

import tfdist
from tfdist.gradients import sum_over_replicas

BATCH_SIZE, STEPS = 11, 6
BUCKET_BYTES = 256
Options = tf.distribute.experimental.CommunicationOptions
#: Settings that differ from the defaults, and the user's own options.
VARIANTS: dict[str, tuple[dict[str, Any], Any]] = {
    "buckets": ({"bucket_bytes": BUCKET_BYTES, "gathered_bytes": 0}, None),
    "gathered": ({"bucket_bytes": BUCKET_BYTES}, None),
    "one bucket": ({"gathered_bytes": 0}, None),
    "no buckets": ({"bucket_bytes": 0}, None),
    "fresh keys": ({"bucket_bytes": BUCKET_BYTES, "gathered_bytes": 0, "keeps_keys": False}, None),
    "user's": ({"gathered_bytes": 0}, Options(bytes_per_pack=1024)),
}
COLLECTIVES = ("CollectiveReduceV2", "CollectiveGatherV2")
#: Elements of what is summed directly: one that is cut, small ones, of two dtypes.
SHAPES = (((40, 10), "float32"), ((3,), "float32"), ((70,), "float64"), ((), "float32"), ((30,), "float32"))


def make_strategy(settings: dict[str, Any], options: Any) -> tfdist.MultiWorkerMirroredStrategy:
    """One with these settings."""

    class Strategy(tfdist.MultiWorkerMirroredStrategy):
        collective_settings = dataclasses.replace(tfdist.MultiWorkerMirroredStrategy.collective_settings, **settings)

    return Strategy(communication_options=options)


def build(strategy: Any = None) -> keras.Model:
    """An embedding, whose gradient is sparse, layers larger and smaller than a bucket, and one in float64."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,), dtype="int32")
    hidden = keras.layers.Flatten()(keras.layers.Embedding(30, 5)(inputs))
    hidden = keras.layers.Dense(16, activation="tanh")(hidden)
    hidden = keras.layers.Dense(4, activation="tanh", dtype="float64")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def train(model: keras.Model) -> dict[str, Any]:
    """Weights and history after a few uneven batches."""
    random = np.random.RandomState(0)
    rows = BATCH_SIZE * STEPS - 4
    x, y = random.randint(0, 30, (rows, 4)), random.randint(0, 3, rows)
    history = model.fit(x, y, batch_size=BATCH_SIZE, epochs=2, shuffle=False, verbose=0)
    return {"weights": [np.asarray(one) for one in model.get_weights()], "history": history.history}


def values_of(replica: int) -> list[np.ndarray]:
    """What a replica sums directly."""
    random = np.random.RandomState(replica)
    return [np.asarray(random.randn(*shape), dtype) for shape, dtype in SHAPES]


def reduced(strategy: Any) -> tuple[list[np.ndarray], list[tuple[str, int, int]], set[str]]:
    """Sums of `values_of`; dtype, elements and key of each all-reduce; and the operations that make them."""

    @tf.function
    def run() -> Any:
        mine = values_of(strategy.worker_index)
        return strategy.extended.call_for_each_replica(lambda: sum_over_replicas([tf.constant(one) for one in mine]))

    sums = [strategy.experimental_local_results(one)[0].numpy() for one in run()]
    operations = [one for one in run.get_concrete_function().graph.get_operations() if one.type in COLLECTIVES]
    found = []
    for one in operations:
        key = tf.get_static_value(one.inputs[3])
        found.append((one.inputs[0].dtype.name, one.inputs[0].shape.num_elements(), -1 if key is None else int(key)))
    return sums, found, {one.type for one in operations}


def layers_before_each_reduction(strategy: Any) -> list[int]:
    """Multiplications that each all-reduce of a step waits for, in the order in which they are launched."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((8,)), *[keras.layers.Dense(8, use_bias=False) for _ in range(4)]])
        model.compile("sgd", "mse")
        model.optimizer.build(model.trainable_variables)

    @tf.function
    def step() -> None:
        def in_replica() -> None:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(tf.ones([2, 8])))
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

        strategy.run(in_replica)

    operations = step.get_concrete_function().graph.get_operations()
    reductions = [one for one in operations if one.type in COLLECTIVES]
    return [sum(one.type == "MatMul" for one in _waited_for(reduction)) for reduction in reductions]


def _waited_for(operation: tf.Operation) -> set[tf.Operation]:
    found, ahead = set(), [operation]
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead += [*one.control_inputs, *(value.op for value in one.inputs)]
    return found


def page_faults() -> int:
    """Of a buffer of 64 MB that follows another one."""
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        bytearray(64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def main(folder: Path, variants: list[str]) -> None:
    """All in one process."""
    found: dict[str, Any] = {"faults": [page_faults()]}
    for name in variants:
        strategy = make_strategy(*VARIANTS[name])
        with strategy.scope():
            model = build()
        sums, reductions, operations = reduced(strategy)
        found[name] = {
            **train(model),
            "sums": sums,
            "reductions": reductions,
            "operations": operations,
            "bucket_bytes": strategy.bucket_bytes,
            "layers": layers_before_each_reduction(strategy),
        }
        keras.backend.clear_session()
    found["faults"].append(page_faults())
    found["receive chunk"] = context.context().config.experimental.recv_buf_max_chunk
    (folder / f"{strategy.worker_index}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
