"""What a worker sends in an epoch: `python -m tests.strategies.programs.local_sgd_traffic OUTPUT`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfdist
from tests.helpers.collective_count import collectives, count_all
from tests.helpers.tcp_bytes import tcp_bytes
from tests.strategies.programs.local_sgd import make_strategy
from tfdist.gradients.averaging import AveragingOptions

#: Steps of an epoch, and options; the name says how many averagings an epoch has, and how they travel.
MEASURED: dict[str, tuple[int, dict[str, Any]]] = {
    "16 exact": (16, {"sync_every_steps": 1}),
    "4 exact": (16, {"sync_every_steps": 4}),
    "1 exact": (16, {"sync_every_steps": 16}),
    "1 of more steps": (32, {"sync_every_steps": 32}),
    "4 bfloat16": (16, {"sync_every_steps": 4, "compression": "bfloat16"}),
    "4 int8": (16, {"sync_every_steps": 4, "compression": "int8"}),
    # Each four times, and the one that has steps left at the epoch's end once more.
    "4.5 in fragments": (16, {"sync_every_steps": 4, "fragments": 2}),
}
WIDTH, ROWS = 512, 4


def measured(strategy: tfdist.LocalSGDStrategy, steps: int, options: dict[str, Any]) -> dict[str, int]:
    """Bytes and collectives of the second epoch."""
    strategy.averaging_options = AveragingOptions(**options)
    with strategy.scope():
        wide = [keras.layers.Dense(WIDTH, activation="relu") for _ in range(3)]
        model = keras.Sequential([keras.Input((64,)), *wide, keras.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=["mae"])
    x = np.random.RandomState(0).randn(steps * ROWS, 64).astype("float32")
    model.fit(x, x[:, :1], batch_size=ROWS, shuffle=False, verbose=0)
    before = counters()
    model.fit(x, x[:, :1], batch_size=ROWS, shuffle=False, verbose=0)
    after = counters()
    return {name: after[name] - before[name] for name in after}


def counters() -> dict[str, int]:
    return {
        "bytes": tcp_bytes(os.getpid()).sent,
        "collectives": collectives(),
    }


def main(output: Path) -> None:
    strategy = make_strategy(1, sync_every_steps=1)
    count_all()
    found = {name: measured(strategy, *case) for name, case in MEASURED.items()}
    (output / f"{strategy.worker_index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
