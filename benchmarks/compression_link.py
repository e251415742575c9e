"""What compressed gradients cost a step on a slow link, and what `compression="auto"` chooses there.

    sudo .venv/bin/python benchmarks/compression_link.py [--megabits=100] [--rounds=5] [--steps=30]

Two workers, each on one core in a network namespace of its own. All ways run in turns in the same job; printed are
medians of milliseconds a step, and of the ratio to none in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from limited_link import ADDRESSES, limited_link

import tfdist
from tfdist._compat.keras_compression import compression_of
from tfdist.gradients import Cast, PowerSGD, Quantize, TopK
from tfdist.gradients.compression.automatic import FOR_GOOD, NAMES, Automatic
from tfdist.strategies.compressing import as_compressor

WAYS: dict[str, Any] = {
    "none": None,
    "Cast('bfloat16')": Cast(),
    "PowerSGD(rank=4)": PowerSGD(rank=4),
    "TopK(0.01)": TopK(0.01),
    "Quantize(8)": Quantize(8),
    "Quantize(1)": Quantize(1),
    "auto": "auto",
}
FEATURES, UNITS, ROWS = 256, (1024, 768), 128
#: More than "auto" measures.
FIRST_STEPS = 60
PORT = 20_100
TIMEOUT_SECONDS = 900


class Clock(keras.callbacks.Callback):
    """Times the steps of an epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds = time.perf_counter() - self._begun


def measure(rounds: int, steps: int) -> dict[str, Any]:
    """Of one worker: seconds a step by way, a number a round; what "auto" chose; bytes."""
    strategy = tfdist.MultiWorkerMirroredStrategy()
    x = np.random.RandomState(0).randn(ROWS * FIRST_STEPS, FEATURES).astype("float32")
    models = {}
    for name, way in WAYS.items():
        strategy._compression = as_compressor(way)
        with strategy.scope():
            hidden = [keras.layers.Dense(units, activation="relu") for units in UNITS]
            models[name] = keras.Sequential([keras.Input((FEATURES,)), *hidden, keras.layers.Dense(1)])
            models[name].compile("sgd", "mse")
        models[name].fit(x, x[:, :1], batch_size=ROWS, shuffle=False, verbose=0)
    x = x[: ROWS * steps]
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            clock = Clock()
            model.fit(x, x[:, :1], batch_size=ROWS, shuffle=False, verbose=0, callbacks=[clock])
            found[name].append(clock.seconds / steps)
    states = compression_of(models["auto"].optimizer).state.variables
    names = {number: NAMES[way] for way, number in FOR_GOOD.items()}
    (choice,) = strategy.experimental_local_results(states[f"{Automatic.ALL}_choice"])
    sent = {
        name: strategy.sent_bytes(model.optimizer) for name, model in models.items() if name not in ("none", "auto")
    }
    return {"seconds": found, "choice": names[int(choice.numpy())], "sent": sent}


def run(megabits: int, rounds: int, steps: int) -> dict[str, Any]:
    """A job of two workers on a link."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept |= {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    workers = [f"{address}:{PORT}" for address in ADDRESSES]
    with tempfile.TemporaryDirectory() as folder, limited_link(megabits) as link:
        outputs = [Path(folder, f"{index}.json") for index in range(len(workers))]
        tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}} for i in range(len(workers))]
        environments = [{**kept, "TF_CONFIG": json.dumps(task)} for task in tasks]
        options = [f"--rounds={rounds}", f"--steps={steps}"]
        commands = [[sys.executable, __file__, *options, f"--output={output}"] for output in outputs]
        link.run(commands, environments, Path(folder), TIMEOUT_SECONDS)
        return json.loads(outputs[0].read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabits", type=int, default=100, help="a second, in each direction")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.output:
        args.output.write_text(json.dumps(measure(args.rounds, args.steps)))
        return
    found = run(args.megabits, args.rounds, args.steps)
    print(f"{args.megabits} Mbit/s; auto chose {found['choice']}")
    print("| compression | MB a step | ms a step | to none |\n|---|---|---|---|")
    for name, seconds in found["seconds"].items():
        ratio = statistics.median(a / b for a, b in zip(seconds, found["seconds"]["none"], strict=True))
        sent = f"{found['sent'][name] / 1e6:.3f}" if name in found["sent"] else ""
        print(f"| {name} | {sent} | {1e3 * statistics.median(seconds):.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
