"""What tfdist adds to importing TensorFlow and Keras: milliseconds, and the share of their own time.

    python benchmarks/imports.py [--rounds=10]

Each round is a new process, so all files but those of the operating system's cache are read again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

BASELINE = "import tensorflow, keras; keras.Model"
WAYS = {
    "import tfdist": "import tfdist",
    "a strategy": "import tfdist; tfdist.MultiWorkerMirroredStrategy",
    "a strategy and records": "import tfdist; tfdist.MultiWorkerMirroredStrategy, tfdist.data.read_tfrecords",
}


def milliseconds(way: str) -> tuple[float, float]:
    """(TensorFlow and Keras, tfdist on top) in a process of its own."""
    timed = (
        "import json, time; begin = time.perf_counter()\n"
        f"{BASELINE}\n"
        "middle = time.perf_counter()\n"
        f"{way}\n"
        "print(json.dumps([1e3 * (middle - begin), 1e3 * (time.perf_counter() - middle)]))"
    )
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, timeout=300, check=True)
    baseline, added = json.loads(done.stdout.splitlines()[-1])
    return baseline, added


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(options.rounds):
        for name, way in WAYS.items():
            measured[name].append(milliseconds(way))
    for name, pairs in measured.items():
        added = [pair[1] for pair in pairs]
        share = statistics.median(added / baseline for baseline, added in pairs)
        print(f"{name:24s} {statistics.median(added):6.1f} ms, at least {min(added):.1f}; {share:.1%} of TensorFlow's")


if __name__ == "__main__":
    main()
