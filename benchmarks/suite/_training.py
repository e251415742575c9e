"""The contenders that train the perceptron of the contest."""

from __future__ import annotations

from ..harness.contenders import Contender
from ..harness.requirements import (
    JAX,
    KERAS_ON_JAX,
    LEGACY_KERAS,
    MPI,
    TENSORFLOW,
    TORCH,
    taken_by_strategy,
)

STOCK = "stock tf.distribute loop"

#: A contender is a line; all of them have one worker without a strategy as what scaling is measured from.
CONTENDERS = (
    Contender(STOCK, "training_tf", (TENSORFLOW,), options={"strategy": "stock", "engine": "loop"}),
    Contender(
        "legacy Keras fit", "training_tf", (LEGACY_KERAS,), options={"strategy": "stock", "engine": "legacy fit"}
    ),
    Contender("tfdist fit", "training_tf", (TENSORFLOW,), options={"strategy": "tfdist", "engine": "fit"}),
    Contender("tfdist loop", "training_tf", (TENSORFLOW,), options={"strategy": "tfdist", "engine": "loop"}),
    Contender(
        "tfdist over MPI fit",
        "training_tf",
        (TENSORFLOW, MPI, taken_by_strategy("communication")),
        "mpi",
        {"strategy": "tfdist", "engine": "fit", "arguments": {"communication": "mpi"}},
        "mpiexec",
    ),
    Contender("torch DDP", "training_torch", (TORCH,), "torch"),
    Contender("Keras on JAX fit", "training_keras_jax", (JAX, KERAS_ON_JAX), "jax"),
)
