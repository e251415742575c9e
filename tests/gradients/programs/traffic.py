"""What K micro-batches send: `python -m tests.gradients.programs.traffic SETUP OUTPUT` trains with several K.

For each K, and for an accumulation that never ends, which sends what is no gradient, it keeps the collectives that ran,
the bytes that this process sent and received, the flushes and the optimizer steps.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np

from tests.helpers.collective_count import collectives, count_all
from tests.helpers.setups import Setup
from tests.helpers.tcp_bytes import tcp_bytes
from tfdist._compat.keras_optimizers import accumulation_of
from tfdist.gradients import AccumulationOptions

MICRO_BATCHES = 16
#: More than there are micro-batches.
NEVER = 1000


def main(name: str, output: Path) -> None:
    """Measure each K on a model of its own, in the second epoch."""
    setup = Setup.named(name)
    count_all()
    x = np.random.RandomState(0).randn(MICRO_BATCHES * 4, 64).astype("float32")
    found = {steps: measured(setup, x, steps) for steps in (1, 2, 4, 16, NEVER)}
    index = setup.strategy.worker_index
    (output / f"{index}.json").write_text(json.dumps(found))


def measured(setup: Setup, x: np.ndarray, steps: int) -> dict[str, int]:
    """Differences over one epoch."""
    setup.strategy.gradient_accumulation_steps = AccumulationOptions(steps, leftover="drop")
    with setup.scope():
        wide = [keras.layers.Dense(512, activation="relu") for _ in range(3)]
        model = keras.Sequential([keras.Input((64,)), *wide, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    model.fit(x, x[:, :1], batch_size=4, shuffle=False, verbose=0)
    before = counters(model)
    model.fit(x, x[:, :1], batch_size=4, shuffle=False, verbose=0)
    after = counters(model)
    return {name: after[name] - before[name] for name in after}


def counters(model: keras.Model) -> dict[str, int]:
    """What has happened so far."""
    accumulation = accumulation_of(model.optimizer)
    return {
        "collectives": collectives(),
        "bytes": sum(tcp_bytes(os.getpid())),
        "flushes": 0 if accumulation is None else int(accumulation.state.flushes.numpy()),
        "optimizer steps": int(model.optimizer.iterations),
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
