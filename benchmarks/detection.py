"""How long workers take to end after one of them is lost, and that each names it.

    .venv/bin/python benchmarks/detection.py [--times=20] [--workers=3] [--output=FILE]

Real jobs of three workers in `fit`. A time is from the fault to the end of a surviving process; of each job the slowest
survivor counts. The cut network needs root.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.helpers.lost_workers import Survivor, lose
from tests.helpers.networks import HERE, THERE, ip, two_networks

SHORT = {"heartbeat_timeout_seconds": 10.0}


def cut(folder: Path, workers: int) -> list[Survivor]:
    with two_networks() as (here, there, cable):
        return lose(
            folder,
            "wait",
            1,
            workers=workers,
            prefix=lambda worker: ["ip", "netns", "exec", there if worker == 1 else here],
            addresses=[f"{THERE}:2222" if worker == 1 else f"{HERE}:{2222 + worker}" for worker in range(workers)],
            do=lambda: ip(f"-n {here} link set {cable} down"),
            is_victim_alive=True,
        )


def case(fault: str, victim: int, **options: Any) -> Callable[[Path, int], list[Survivor]]:
    return lambda folder, workers: lose(folder, fault, victim, workers=workers, options=options)


CASES: dict[str, Callable[[Path, int], list[Survivor]]] = {
    "a worker is killed (SIGKILL)": case("kill", 1),
    "the chief is killed": case("kill", 0),
    "an exception on a worker": case("fail", 1),
    "an exception on the chief": case("fail", 0),
    "a worker leaves early": case("leave", 1),
    "a worker is stopped (SIGSTOP), heartbeat_timeout_seconds=30": case("stop", 1),
    "a worker is stopped, heartbeat_timeout_seconds=10": case("stop", 1, **SHORT),
    "the chief is stopped, heartbeat_timeout_seconds=10": case("stop", 0, **SHORT),
    "the network to a worker is cut, heartbeat_timeout_seconds=30": cut,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--cases", default="", help="only those that contain this")
    parser.add_argument("--output", type=Path, help="JSON lines, one a job")
    arguments = parser.parse_args()
    print(f"| {'fault':60} | median, s | max, s | named by all |\n|{'-' * 62}|-----------|--------|--------------|")
    for name, run in CASES.items():
        if arguments.cases not in name:
            continue
        slowest, named = [], True
        for _ in range(arguments.times):
            with tempfile.TemporaryDirectory(prefix="tfdist-detection-") as folder:
                survivors = run(Path(folder), arguments.workers)
            slowest.append(max(survivor.seconds for survivor in survivors))
            named = named and all("TaskLostError" in survivor.said for survivor in survivors)
            if arguments.output:
                with arguments.output.open("a") as file:
                    seconds = [round(survivor.seconds, 3) for survivor in survivors]
                    file.write(json.dumps({"case": name, "seconds": seconds, "named": named}) + "\n")
        median, most = statistics.median(slowest), max(slowest)
        print(f"| {name:60} | {median:9.1f} | {most:6.1f} | {'yes' if named else 'no':12} |", flush=True)


if __name__ == "__main__":
    main()
