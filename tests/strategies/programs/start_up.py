"""Makes a strategy: `python -m tests.strategies.programs.start_up OPTIONS [CLOCK_AHEAD_SECONDS]`."""

from __future__ import annotations

import json
import sys
import time

import tfdist


def main(options: str, ahead: float = 0.0) -> None:
    now = time.time
    time.time = lambda: now() + ahead
    tfdist.MultiWorkerMirroredStrategy(**json.loads(options))
    print("all workers have met")


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
