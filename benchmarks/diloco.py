"""DiLoCo against fully synchronous training: the same characters, bytes on the wire, and the loss on text held out.

    python benchmarks/diloco.py --text=FILE [--ways=2:sync,2:50,4:50] [--steps=4000] [options of examples/diloco.py]

A way is a number of workers and of steps between two exchanges; `2:50/4+6` averages in 4 fragments, each beside the 6
steps after it. Bytes are what a worker sent over TCP while it trained. Workers are processes of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfdist
from tests.helpers.tcp_bytes import tcp_bytes

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import diloco

TIMEOUT_SECONDS = 3600
_WAY = re.compile(r"(?P<workers>\d+):(?P<every>sync|\d+)(?:/(?P<fragments>\d+))?(?:\+(?P<overlap>\d+))?$")


def make_strategy(way: re.Match[str], args: argparse.Namespace) -> Any:
    if way["every"] == "sync":
        return tfdist.MultiWorkerMirroredStrategy()
    return tfdist.LocalSGDStrategy(
        sync_every_steps=int(way["every"]),
        outer_optimizer=lambda: keras.optimizers.SGD(args.outer_rate, momentum=args.outer_momentum, nesterov=True),
        fragments=int(way["fragments"] or 1),
        overlap_steps=int(way["overlap"] or 0),
    )


def train(way: re.Match[str], args: argparse.Namespace) -> dict[str, Any]:
    """On one worker."""
    strategy = make_strategy(way, args)
    keras.utils.set_random_seed(0)
    text = diloco.load_text(args.text)
    train, test = (diloco.batches(part, args.batch_size) for part in np.split(text, [len(text) * 9 // 10]))
    model = diloco.build_model(strategy, args)
    before = tcp_bytes(os.getpid()).sent
    model.fit(train.repeat(), steps_per_epoch=args.steps, shuffle=False, verbose=0)
    sent = tcp_bytes(os.getpid()).sent - before
    return {
        "way": way[0],
        "characters": args.steps * args.batch_size * diloco.CONTEXT,
        "megabytes": sent / 1e6,
        "model_megabytes": 4e-6 * model.count_params(),
        "loss": model.evaluate(test, verbose=0),
    }


def launched(way: re.Match[str]) -> dict[str, Any]:
    """What the chief of a job found."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tfdist", "launch", f"--workers={way['workers']}", __file__, *sys.argv[1:]]
        output = Path(folder, "found.json")
        subprocess.run(
            [*command, f"--here={way[0]}", f"--output={output}"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_SECONDS,
        )
        return json.loads(output.read_text())


def parse_way(text: str) -> re.Match[str]:
    way = _WAY.match(text)
    if way is None:
        raise SystemExit(f"Expected: a way such as 2:sync, 4:50 or 2:50/4+6. Received: {text!r}.")
    return way


def main() -> None:
    parser = diloco.arguments()
    parser.description, parser.formatter_class = __doc__, argparse.RawDescriptionHelpFormatter
    parser.set_defaults(steps=4000)
    parser.add_argument("--ways", default="2:sync,2:50,4:50")
    parser.add_argument("--here", type=parse_way, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here is not None:
        found = train(args.here, args)
        if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 0:
            args.output.write_text(json.dumps(found))
        return
    print("| workers: exchange | characters | MB sent by a worker | validation loss | above the first |")
    print("|---|---|---|---|---|")
    first = None
    for found in map(launched, [parse_way(text) for text in args.ways.split(",")]):
        first = first or found["loss"]
        above = found["loss"] / first - 1
        print(
            f"| {found['way']} | {found['characters']:,} | {found['megabytes']:,.1f} | {found['loss']:.4f} "
            f"| {above:+.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
