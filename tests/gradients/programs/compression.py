"""Six optimizer steps with gradients that are given: `python -m tests.gradients.programs.compression SETUP OUTPUT`.

Keeps, of each case, the weights after each step and what each local replica owes; test_compression.py works out the
same in NumPy. `--few` leaves out cases that differ from others in numbers only.
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

from tests.helpers.setups import Setup
from tfdist._compat.keras_compression import compression_of
from tfdist.cluster import Cluster
from tfdist.gradients import AccumulationOptions, Cast, Compressor, PowerSGD, Quantize, TopK, norm_above
from tfdist.strategies.compressing import as_compressor

STEPS, REPLICAS = 6, 2
#: A kernel, a convolution's, a bias, and a kernel that is too small.
SHAPES = ((60, 40), (3, 3, 8, 30), (40,), (10, 20))
#: Steps in which a gradient of replica 1 has an inf or NaN.
NOT_FINITE = {2: np.inf, 4: np.nan}

COMPRESSORS: dict[str, Compressor] = {
    "bfloat16": Cast("bfloat16"),
    "float16": Cast("float16"),
    "power": PowerSGD(rank=3),
    "power later": PowerSGD(rank=2, start_step=2),
    "power in 16 bits": PowerSGD(rank=3, dtype="bfloat16"),
    "top": TopK(0.05),
    "top with momentum": TopK(0.05, momentum=0.9),
    "top warmed up": TopK(0.05, warmup_steps=4),
    "8 bits": Quantize(bits=8),
    "4 bits": Quantize(bits=4),
    "1 bit": Quantize(bits=1),
}


def gradients(step: int, replica: int) -> list[np.ndarray]:
    """What a replica has in a step."""
    random = np.random.RandomState(100 * step + replica)
    return [random.randn(*shape).astype("float32") * 0.1 for shape in SHAPES]


#: Of each way to send, one case.
FEW = ("bfloat16", "power later", "top with momentum", "1 bit")


def main(name: str, output: Path, *, few: bool) -> None:
    """Run the cases."""
    setup = Setup.named(name)
    index = Cluster.from_tf_config(os.environ.get("TF_CONFIG", "{}")).worker_index or 0
    found: dict[str, Any] = {}
    for case, compressor in COMPRESSORS.items():
        if few and case not in FEW:
            continue
        found[case] = run(setup, compressor, lambda: keras.optimizers.SGD(1.0))
    if few:
        (output / f"{index}.pickle").write_bytes(pickle.dumps(found))
        return
    scaled = lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), 8.0, 2)  # noqa: E731
    for case in ("power", "top", "8 bits"):
        found[f"{case}, scaled"] = run(setup, COMPRESSORS[case], scaled, spoilt=True)
    found["power, accumulated"] = run(setup, PowerSGD(rank=3), lambda: keras.optimizers.SGD(1.0), accumulated=3)
    rules = AccumulationOptions(1, skip_rules=[norm_above(1e-3)])
    found["power, skipped"] = run(setup, PowerSGD(rank=3), lambda: keras.optimizers.SGD(1.0), accumulated=rules)
    (output / f"{index}.pickle").write_bytes(pickle.dumps(found))


def run(
    setup: Setup,
    compressor: Compressor,
    make: Callable[[], keras.optimizers.Optimizer],
    *,
    spoilt: bool = False,
    accumulated: Any = 1,
) -> dict[str, Any]:
    """Weights after each step, and states by name and local replica."""
    strategy = setup.strategy
    strategy._compression = as_compressor(compressor)
    strategy.gradient_accumulation_steps = accumulated
    with setup.scope():
        variables = [keras.Variable(np.zeros(shape, "float32")) for shape in SHAPES]
        optimizer = make()
        optimizer.build(variables)

    @tf.function
    def step(given: Any) -> None:
        def in_replica(given: list[tf.Tensor]) -> None:
            scale = optimizer.scale_loss(tf.constant(1.0))
            optimizer.apply([scale * one for one in given], variables)

        strategy.run(in_replica, (given,))

    weights, states = [], []
    for number in range(STEPS):
        step(strategy.experimental_distribute_values_from_function(lambda c, n=number: given(c, n, spoilt)))
        weights.append([variable.numpy() for variable in variables])
        states.append(
            {
                name: [copy.numpy() for copy in strategy.experimental_local_results(variable)]
                for name, variable in compression_of(optimizer).state.variables.items()
            }
        )
    return {"weights": weights, "states": states, "sent": strategy.sent_bytes(optimizer)}


def given(context: Any, step: int, spoilt: bool) -> list[tf.Tensor]:
    """The gradients of the replica that is asked for."""
    replica = context.replica_id_in_sync_group
    values = gradients(step, replica)
    if spoilt and replica == 1 and step in NOT_FINITE:
        values[0][3, 4] = NOT_FINITE[step]
    return [tf.constant(value) for value in values]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), few="--few" in sys.argv)
