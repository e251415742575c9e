"""What each setting of MultiWorkerMirroredStrategy's collectives gains, on two processes of this machine.

    python benchmarks/all_reduce_settings.py [--rounds=5] [--only=all,stock]

Each process has a core of its own. Every round runs all variants one after another, so that what else the machine does
falls on all alike; medians over the rounds are given, and what to quote are their ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from limited_link import ADDRESSES, Link, limited_link

from tfdist.cluster.ports import HeldPorts

TASK = str(Path(__file__).with_name("all_reduce_task.py"))
SIZES = [["100 MB", 25_000_000, 5], ["4 KB", 1024, 150]]
#: Name, settings that differ from the defaults.
VARIANTS: dict[str, Any] = {
    "one worker": None,
    "stock TensorFlow": "stock",
    "all": {},
    "no buckets": {"bucket_bytes": 0},
    "buckets of 1 MB": {"bucket_bytes": 1 << 20},
    "buckets of 4 MB": {"bucket_bytes": 4 << 20},
    "receive in 4 KB": {"receive_chunk_bytes": 0},
    "memory given back": {"keeps_memory": False},
    "nothing gathered": {"gathered_bytes": 0},
    "fresh keys": {"keeps_keys": False},
}


def run(
    settings: Any, link: Link | None = None, *, steps: int = 150, hidden: int = 2, timeout_seconds: float = 180
) -> dict[str, Any]:
    """What the first worker has measured."""
    workers = 1 if settings is None else 2
    sizes = [] if workers == 1 else SIZES
    spec = {"settings": settings, "steps": steps, "sizes": sizes, "hidden": hidden, "timeline": hidden > 2}
    command = [sys.executable, TASK, json.dumps(spec)]
    with HeldPorts(workers) as held, tempfile.TemporaryDirectory(prefix="tfdist-all-reduce-") as folder:
        hosts = ADDRESSES if link else ("127.0.0.1",) * 2
        addresses = [f"{host}:{port}" for host, port in zip(hosts, held.ports, strict=False)]
        held.release_for_servers()
        environments = [environment(addresses, index) for index in range(workers)]
        (link or Link(None)).run([command] * workers, environments, Path(folder), timeout_seconds)
        lines = (Path(folder) / "0.log").read_text(errors="replace").splitlines()
    return json.loads(next(line for line in lines if line.startswith("RESULT ")).removeprefix("RESULT "))


def environment(addresses: list[str], index: int) -> dict[str, str]:
    """Of one task."""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    if len(addresses) > 1:
        task = {"type": "worker", "index": index}
        env["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    return env


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="names of variants, by commas")
    parser.add_argument("--megabits", type=int, default=0, help="of a link between the two; 0 for loopback")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--hidden", type=int, default=2, help="layers; above 2 the buckets of a step are shown too")
    options = parser.parse_args()
    chosen = {n: s for n, s in VARIANTS.items() if not options.only or n in options.only.split(",")}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    with limited_link(options.megabits) if options.megabits else contextlib.nullcontext() as link:
        for _ in range(options.rounds):
            for name, settings in chosen.items():
                found[name].append(run(settings, link, steps=options.steps, hidden=options.hidden))
    medians = {
        name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0] if key != "buckets"}
        for name, rounds in found.items()
    }
    alone = medians.get("one worker", {}).get("step")
    for name, of in medians.items():
        if "100 MB" in of:
            print(
                f"{name:20s} 100 MB {0.1 / of['100 MB']:5.2f} GB/s, {of['100 MB cpu']:5.3f} s of a core   "
                f"4 KB {1e3 * of['4 KB']:5.2f} ms, {1e3 * of['4 KB cpu']:5.2f} of a core"
            )
    for name, of in medians.items():
        efficiency = f"efficiency {alone / of['step']:4.2f}  " if alone and of["step"] else ""
        print(
            f"{name:20s} step {1e3 * of['step']:6.2f} ms, {1e3 * of['cpu']:6.2f} of a core  {efficiency}"
            f"batch {1e3 * of['input']:5.2f} ms  "
            f"memory {of['peak_mb']:4.0f} MB, {of['left_mb']:4.0f} MB at the end"
        )
    for name, rounds in found.items():
        for size, ready, back in rounds[-1].get("buckets", []):
            print(f"{name}: {size / 2**20:5.1f} MB ready at {ready:6.1f} ms, back at {back:6.1f} ms")


if __name__ == "__main__":
    main()
