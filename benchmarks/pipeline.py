"""How much faster a model in two stages trains when batches are cut into micro-batches.

python benchmarks/pipeline.py                 # each stage a server process with one thread, pinned to a core
python benchmarks/pipeline.py --in_process    # devices of one process, which share its threads
python benchmarks/pipeline.py --timeline      # what each stage does when, of the shortest step with four micro-batches
python benchmarks/pipeline.py --pipelines=2   # two pipelines side by side, each pinned to a core, and the first alone

A stage in a process of its own computes one thing at a time, as an accelerator does. Prints, for each number of
micro-batches, the median time of a step and the median of its ratios to the step with one micro-batch, in rounds that
take turns, beside what the schedule alone gives: 2 M / (M + 1).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
MICRO_BATCHES = (1, 2, 4, 8)
STAGES = 2
SERVER = """
import os, sys
index = int(sys.argv[1])
cores = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, {cores[index * len(cores) // len(sys.argv[2].split(",")) % len(cores)]})
import tensorflow as tf
config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
tf.distribute.Server({"stage": sys.argv[2].split(",")}, "stage", index, config=config).join()
"""


@contextlib.contextmanager
def servers(count: int) -> Iterator[list[str]]:
    """A process for each stage of each pipeline; their devices' names."""
    import tensorflow as tf

    from tfdist.cluster.ports import HeldPorts

    with HeldPorts(count) as held:
        addresses = [f"127.0.0.1:{port}" for port in held.ports]
        held.release_for_servers()
        commands = [[sys.executable, "-c", SERVER, str(index), ",".join(addresses)] for index in range(count)]
        processes = [subprocess.Popen(command) for command in commands]
    try:
        tf.config.experimental_connect_to_cluster(tf.train.ClusterSpec({"stage": addresses}), job_name="localhost")
        yield [f"/job:stage/task:{index}/device:CPU:0" for index in range(count)]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def logical_devices(count: int) -> Iterator[list[str]]:
    """This process' CPU, cut."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    yield [f"CPU:{index}" for index in range(count)]


def make(devices: list[str], micro_batches: int, args: argparse.Namespace) -> Any:
    """A compiled model in stages, and its strategy."""
    import keras

    import tfdist

    grid = [devices[first : first + STAGES] for first in range(0, len(devices), STAGES)]
    strategy = tfdist.PipelineStages(
        grid, micro_batches=micro_batches, schedule=args.schedule, record_times=args.timeline
    )
    with strategy.scope():
        layers = [keras.layers.Dense(args.width, activation="relu") for _ in range(2 * STAGES + 2)]
        model = keras.Sequential([keras.Input((args.width,)), *layers])
        model.compile(keras.optimizers.SGD(0.01), "mse")
    return model, strategy


def rows_of(args: argparse.Namespace) -> Any:
    import numpy as np

    return np.random.default_rng(0).standard_normal((args.batch_size, args.width), dtype=np.float32)


def show_timeline(devices: list[str], args: argparse.Namespace) -> None:
    model, strategy = make(devices, 4, args)
    rows, found = rows_of(args), []
    for _ in range(3 + args.rounds):
        model.train_on_batch(rows, rows)
        found.append(strategy.timeline())
    print(min(found[3:], key=lambda one: one.span_seconds))


def step_seconds(models: dict[int, Any], args: argparse.Namespace) -> dict[int, list[float]]:
    """Of each model in rounds that take turns."""
    rows = rows_of(args)
    for model in models.values():
        for _ in range(3):
            model.train_on_batch(rows, rows)
    seconds: dict[int, list[float]] = {key: [] for key in models}
    for _ in range(args.rounds):
        for key, model in models.items():
            begin = time.perf_counter()
            model.train_on_batch(rows, rows)
            seconds[key].append(time.perf_counter() - begin)
    return seconds


def show(what: str, seconds: dict[int, list[float]], schedule: Callable[[int], float]) -> None:
    print(f"{what}  ms a step  times as fast  by the schedule")
    for key, times in seconds.items():
        ratio = statistics.median(one / other for one, other in zip(seconds[1], times, strict=True))
        print(f"{key:{len(what)}}  {1000 * statistics.median(times):9.0f}  {ratio:13.2f}  {schedule(key):15.2f}")


def measure(devices: list[str], args: argparse.Namespace) -> None:
    if args.pipelines == 1:
        models = {count: make(devices, count, args)[0] for count in MICRO_BATCHES}
        show("micro-batches", step_seconds(models, args), lambda count: STAGES * count / (count + STAGES - 1))
    else:  # the first one alone, and all
        models = {count: make(devices[: STAGES * count], 4, args)[0] for count in (1, args.pipelines)}
        show("pipelines", step_seconds(models, args), float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in_process", action="store_true")
    parser.add_argument("--timeline", action="store_true")
    parser.add_argument("--pipelines", type=int, default=1)
    parser.add_argument("--schedule", default="1f1b", choices=["1f1b", "gpipe"])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(STAGES * args.pipelines)
    with (logical_devices if args.in_process else servers)(STAGES * args.pipelines) as devices:
        (show_timeline if args.timeline else measure)(devices, args)


if __name__ == "__main__":
    main()
