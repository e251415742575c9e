"""What averaging over a slow link costs a step of LocalSGDStrategy: at once, in fragments, and beside local steps.

    sudo .venv/bin/python benchmarks/local_sgd.py [--megabits=100] [--rounds=5]

Two workers, each on one core in a network namespace of its own. All ways run in turns in the same job; printed are
medians of milliseconds a step, and how much longer that is than a step of the same round without averaging.
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
from tfdist.gradients.averaging import AveragingOptions

EVERY, FRAGMENTS = 32, 4
#: One averaging ends before the next begins.
OVERLAP, OVERLAP_OF_FRAGMENT = EVERY - 1, EVERY // FRAGMENTS - 1
WAYS: dict[str, dict[str, Any]] = {
    "no averaging": {"sync_every_steps": 10**9},
    "every step": {"sync_every_steps": 1},
    f"every {EVERY}": {"sync_every_steps": EVERY},
    f"every {EVERY}, {FRAGMENTS} fragments": {"sync_every_steps": EVERY, "fragments": FRAGMENTS},
    f"every {EVERY}, beside {OVERLAP} steps": {"sync_every_steps": EVERY, "overlap_steps": OVERLAP},
    f"every {EVERY}, {FRAGMENTS} fragments, each beside {OVERLAP_OF_FRAGMENT} steps": {
        "sync_every_steps": EVERY,
        "fragments": FRAGMENTS,
        "overlap_steps": OVERLAP_OF_FRAGMENT,
    },
}
FEATURES, UNITS, ROWS = 256, (1024, 768), 128
PERIODS = 4
PORT = 20_000
TIMEOUT_SECONDS = 1800


class Clock(keras.callbacks.Callback):
    """Times the steps of an epoch after the first period, without what is averaged at the epoch's end."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch + 1 == EVERY:
            self._begun = time.perf_counter()
        if batch + 1 == EVERY * (PERIODS + 1):
            self.seconds = (time.perf_counter() - self._begun) / (EVERY * PERIODS)


def measure(rounds: int) -> dict[str, Any]:
    """Of one worker: seconds a step by way, a number a round."""
    strategy = tfdist.LocalSGDStrategy(sync_every_steps=1)
    x = np.random.RandomState(0).randn(ROWS * EVERY * (PERIODS + 1), FEATURES).astype("float32")
    models = {}
    for name, options in WAYS.items():
        strategy.averaging_options = AveragingOptions(verify_equal=False, **options)
        with strategy.scope():
            hidden = [keras.layers.Dense(units, activation="relu") for units in UNITS]
            models[name] = keras.Sequential([keras.Input((FEATURES,)), *hidden, keras.layers.Dense(1)])
            models[name].compile("sgd", "mse")
    found: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 1):
        for name, model in models.items():
            clock = Clock()
            model.fit(x, x[:, :1], batch_size=ROWS, shuffle=False, verbose=0, callbacks=[clock])
            if number:  # the first one traces
                found[name].append(clock.seconds)
    return {"seconds": found, "megabytes": 4e-6 * model.count_params()}


def run(megabits: int, rounds: int) -> dict[str, Any]:
    """A job of two workers on a link."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept |= {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    workers = [f"{address}:{PORT}" for address in ADDRESSES]
    with tempfile.TemporaryDirectory() as folder, limited_link(megabits) as link:
        outputs = [Path(folder, f"{index}.json") for index in range(len(workers))]
        tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}} for i in range(len(workers))]
        environments = [{**kept, "TF_CONFIG": json.dumps(task)} for task in tasks]
        commands = [[sys.executable, __file__, f"--rounds={rounds}", f"--output={output}"] for output in outputs]
        link.run(commands, environments, Path(folder), TIMEOUT_SECONDS)
        return json.loads(outputs[0].read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabits", type=int, default=100, help="a second, in each direction")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.output:
        args.output.write_text(json.dumps(measure(args.rounds)))
        return
    found = run(args.megabits, args.rounds)
    print(f"{found['megabytes']:.1f} MB of weights, {args.megabits} Mbit/s")
    print("| averaging | ms a step | to no averaging |\n|---|---|---|")
    alone = found["seconds"]["no averaging"]
    for name, seconds in found["seconds"].items():
        ratio = statistics.median(one / other for one, other in zip(seconds, alone, strict=True))
        print(f"| {name} | {1e3 * statistics.median(seconds):.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
