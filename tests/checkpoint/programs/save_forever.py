"""Saves checkpoints and says so, until it is killed: `python -m tests.checkpoint.programs.save_forever DIRECTORY`."""

from __future__ import annotations

import sys

from tfdist.checkpoint.files import CheckpointFiles

KEEP = 3
#: Large enough that a file takes a while.
SIZES = {"weights.weights.h5": 3_000_000, "state.npz": 20_000, "state.json": 3_000}


def main(directory: str) -> None:
    files = CheckpointFiles(directory, KEEP)
    files.prepare()
    newest = files.newest_whole()
    first = int(newest.split("-")[-1]) + 1 if newest else 0
    for step in range(first, first + 10_000):
        content = {name: bytes([step % 256]) * size for name, size in SIZES.items()}
        print(files.write(0, step, content), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
