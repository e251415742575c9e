"""Records/s of `read_tfrecords` against tf.data as its guide recommends it, grain, and reading the bytes alone.

    python benchmarks/input.py [--sizes=100,100000] [--batches=32,256,1024] [--rounds=5] [--cold]

Each way, a process of its own, reads all records, parses them in batches and throws them away. Ways take turns; the
ratio of the medians to tf.data's is what to quote. `--cold` drops the files from the page cache before each reading.
grain takes part where it is installed, with the same records as ArrayRecord files, which it was made for.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import input_ways as ways
import numpy as np

import tfdist
from tfdist.data import String, Tensor

_DEADLINE_SECONDS = 300


def write(folder: Path, size: int, total_bytes: int, shards: int) -> int:
    """Records of about `size` bytes; returns how many."""
    count = max(total_bytes // size, shards)
    random = np.random.default_rng(0)
    features = {"x": String(), "y": Tensor([], "int64")}
    pattern = str(folder / "x-*.tfrecord")
    with tfdist.data.TFRecordWriter(pattern, features, num_shards=shards, num_records=count, progress=False) as writer:
        for number in range(count):
            writer.write(x=random.bytes(max(size - 42, 1)), y=number)
    return count


def forget(folder: Path) -> None:
    """Drop the files from the page cache."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


class Contestant:
    """One way, in a process of its own: what others leave in the heap must not matter."""

    def __init__(self, name: str, folder: Path, batch: int, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, name, folder, batch, count), daemon=True)
        self._process.start()

    def seconds(self) -> float:
        """Of one reading."""
        self._pipe.send(True)
        if not self._pipe.poll(_DEADLINE_SECONDS):
            raise TimeoutError(f"A reading took more than {_DEADLINE_SECONDS} s.")
        return float(self._pipe.recv())

    def end(self) -> None:
        self._pipe.send(False)
        self._process.join(_DEADLINE_SECONDS)


def _serve(pipe: Connection, name: str, folder: Path, batch: int, count: int) -> None:
    read = ways.candidates(folder, batch, count)[name]
    while pipe.recv():
        begin = time.perf_counter()
        seen = read()
        seconds = time.perf_counter() - begin
        assert seen == count, (name, seen, count)
        pipe.send(seconds)


def contest(folder: Path, batch: int, count: int, *, rounds: int, cold: bool) -> dict[str, list[float]]:
    """Seconds of each way in each round, in turns; the first two rounds only warm up."""
    contestants = {name: Contestant(name, folder, batch, count) for name in ways.candidates(folder, batch, count)}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 2):
        for name, one in contestants.items():
            if cold:
                forget(folder)
            seconds = one.seconds()
            if number >= 2:
                times[name].append(seconds)
    for one in contestants.values():
        one.end()
    return times


def report(times: dict[str, list[float]], count: int, size_bytes: int) -> None:
    base = statistics.median(times["tf.data"])
    for name, values in times.items():
        middle = statistics.median(values)
        spread = f"{base / max(values):.2f}-{base / min(values):.2f}"
        rates = f"{count / middle:12,.0f} records/s {size_bytes / middle / 1e6:8,.0f} MB/s"
        print(f"  {name:28s}{rates}   {base / middle:5.2f} x tf.data ({spread})", flush=True)


def first_batch(folder: Path, rounds: int) -> None:
    """Seconds from nothing to the first batch of 1,000 files."""
    write(folder, 100, 4_000_000, 1000)
    index = next(folder.glob("*.tfdist-index"))
    times: dict[str, list[float]] = {"with index": [], "without index": [], "shuffled": [], "tf.data": []}
    for _ in range(rounds):
        for name, values in times.items():
            hidden = index.with_suffix(".hidden")
            if name == "without index":
                index.rename(hidden)
            begin = time.perf_counter()
            ways.first(folder, name)
            values.append(time.perf_counter() - begin)
            if hidden.exists():
                hidden.rename(index)
    print("first batch of 1,000 files, median ms")
    for name, values in times.items():
        print(f"  {name:28s}{1e3 * statistics.median(values):8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,100000", help="bytes of a record")
    parser.add_argument("--batches", default="32,256,1024")
    parser.add_argument("--megabytes", type=int, default=60, help="of small records; of large ones 30 times as many")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    for size in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix="tfdist-input-", dir=os.environ.get("TMPDIR")) as name:
            folder = Path(name)
            total = options.megabytes * 1_000_000 * (30 if size > 10_000 else 1)
            count = write(folder, size, total, 8)
            stored = sum(path.stat().st_size for path in folder.glob("*.tfrecord"))
            for batch in map(int, options.batches.split(",")):
                if batch * size > 64_000_000:
                    continue
                print(f"records of {size:,} bytes, batches of {batch}{', cold' if options.cold else ''}", flush=True)
                times = contest(folder, batch, count, rounds=options.rounds, cold=options.cold)
                report(times, count, stored)
    with tempfile.TemporaryDirectory(prefix="tfdist-input-") as name:
        first_batch(Path(name), options.rounds)


if __name__ == "__main__":
    main()
