"""How much faster a model in two stages trains when batches are cut into micro-batches.

python benchmarks/pipeline.py                 # each stage a server process with one thread, pinned to a core
python benchmarks/pipeline.py --in_process    # two devices of one process, which share its threads

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
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
MICRO_BATCHES = (1, 2, 4, 8)
STAGES = 2
SERVER = """
import os, sys
index = int(sys.argv[1])
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[index]})
import tensorflow as tf
config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
tf.distribute.Server({"stage": sys.argv[2].split(",")}, "stage", index, config=config).join()
"""


@contextlib.contextmanager
def servers() -> Iterator[list[str]]:
    """A process for each stage; its device's names."""
    import tensorflow as tf

    from tfdist.cluster.ports import HeldPorts

    with HeldPorts(STAGES) as held:
        addresses = [f"127.0.0.1:{port}" for port in held.ports]
        held.release_for_servers()
        commands = [[sys.executable, "-c", SERVER, str(index), ",".join(addresses)] for index in range(STAGES)]
        processes = [subprocess.Popen(command) for command in commands]
    try:
        tf.config.experimental_connect_to_cluster(tf.train.ClusterSpec({"stage": addresses}), job_name="localhost")
        yield [f"/job:stage/task:{index}/device:CPU:0" for index in range(STAGES)]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def logical_devices() -> Iterator[list[str]]:
    """This process' CPU, cut."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * STAGES)
    yield [f"CPU:{index}" for index in range(STAGES)]


def measure(devices: list[str], args: argparse.Namespace) -> None:
    import keras
    import numpy as np

    import tfdist

    def make(micro_batches: int) -> keras.Model:
        strategy = tfdist.PipelineStages(devices, micro_batches=micro_batches, schedule=args.schedule)
        with strategy.scope():
            layers = [keras.layers.Dense(args.width, activation="relu") for _ in range(2 * STAGES + 2)]
            model = keras.Sequential([keras.Input((args.width,)), *layers])
            model.compile(keras.optimizers.SGD(0.01), "mse")
        return model

    models = {count: make(count) for count in MICRO_BATCHES}
    rows = np.random.default_rng(0).standard_normal((args.batch_size, args.width), dtype=np.float32)
    for model in models.values():
        for _ in range(3):
            model.train_on_batch(rows, rows)
    seconds: dict[int, list[float]] = {count: [] for count in models}
    for _ in range(args.rounds):
        for count, model in models.items():
            begin = time.perf_counter()
            model.train_on_batch(rows, rows)
            seconds[count].append(time.perf_counter() - begin)
    print("micro-batches  ms a step  times as fast  by the schedule")
    for count, times in seconds.items():
        ratio = statistics.median(one / other for one, other in zip(seconds[1], times, strict=True))
        best = STAGES * count / (count + STAGES - 1)
        print(f"{count:13}  {1000 * statistics.median(times):9.0f}  {ratio:13.2f}  {best:15.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in_process", action="store_true")
    parser.add_argument("--schedule", default="1f1b", choices=["1f1b", "gpipe"])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(STAGES)
    with (logical_devices if args.in_process else servers)() as devices:
        measure(devices, args)


if __name__ == "__main__":
    main()
