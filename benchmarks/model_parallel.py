"""Step time and memory of a transformer on a mesh of logical CPUs, against other ways to train it.

    python benchmarks/model_parallel.py [--jax_python=PATH] [--vocabulary=65536 ...]

The contenders: one device; tfdist.MirroredStrategy on as many devices as the mesh has; tfdist.HybridParallelStrategy,
without and with FSDP; and keras.distribution.ModelParallel, which runs on JAX, with the same layouts, by a Python that
has Keras and JAX. Each is a process of its own on the same cores, and only one of them trains at a time, in rounds that
take turns. Prints the median time of a step, the median of its ratios to JAX's in the same round (or to one device's),
and the peak of the process' memory while it trained: all of it, and what the model and its steps added.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

CONTENDERS = ("one device", "mirrored", "hybrid", "hybrid, FSDP", "jax")
TASK = Path(__file__).parent / "model_parallel_task.py"
SIZES = {"batch": 2, "model": 2, "width": 128, "time": 64, "blocks": 2, "vocabulary": 256, "batch_size": 16}


class Contender:
    """A process that trains when it's told to.

    Args:
        name: one of CONTENDERS.
        python: the interpreter.
        sizes: of the mesh and of the model.
        cores: on which it runs.
    """

    def __init__(self, name: str, python: str, sizes: dict[str, int], cores: set[int]) -> None:
        self.name = name
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        if name == "jax":
            count = sizes["batch"] * sizes["model"]
            flags = f"--xla_force_host_platform_device_count={count}"
            environment |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        self._process = subprocess.Popen(
            [python, str(TASK), name, json.dumps(sizes)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        self._answer()

    def train(self, steps: int) -> dict[str, float]:
        """Seconds a step, and memory in MiB."""
        self._process.stdin.write(f"{steps}\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return json.loads(self._answer())

    def _answer(self) -> str:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError(f"{self.name!r} ended with exit code {self._process.wait()}: run {TASK.name} to see why")
        return line

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def report(found: dict[str, list[dict[str, float]]]) -> None:
    baseline = "jax" if "jax" in found else "one device"
    print(f"{'':14}  ms a step  times as fast as {baseline:10}  peak MiB  MiB added")
    for name, rounds in found.items():
        pairs = zip(found[baseline], rounds, strict=True)
        ratio = statistics.median(one["seconds"] / other["seconds"] for one, other in pairs)
        milliseconds = 1000 * statistics.median(one["seconds"] for one in rounds)
        last = rounds[-1]
        print(f"{name:14}  {milliseconds:9.1f}  {ratio:26.2f}  {last['peak']:8.0f}  {last['added']:9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jax_python", help="a Python with Keras and JAX")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="in each round")
    parser.add_argument("--cores", type=int, nargs="+", default=sorted(os.sched_getaffinity(0)))
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    args: Any = parser.parse_args()

    names = [name for name in args.contenders if name != "jax" or args.jax_python]
    if "jax" in args.contenders and not args.jax_python:
        print("jax: not installed, or not said where: --jax_python=PATH")
    sizes = {name: getattr(args, name) for name in SIZES}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        contenders = []
        for name in names:
            python = args.jax_python if name == "jax" else sys.executable
            contenders.append(Contender(name, python, sizes, set(args.cores)))
            stack.callback(contenders[-1].stop)
        for _ in range(args.rounds):
            for contender in contenders:
                found[contender.name].append(contender.train(args.steps))
    report(found)


if __name__ == "__main__":
    main()
