"""An embedding of 2 GB in shards on two ps, and then a smaller one with slots.

`python -m tests.strategies.programs.large_embedding RESULTS.json`
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil
import tensorflow as tf

import tfdist
from tests.helpers.tcp_bytes import tcp_bytes

ROWS, SLOT_ROWS, WIDTH = 8_000_000, 1_000_000, 64
BATCH, IDS = 64, 8
STEPS = 32


def tasks() -> dict[str, list[int]]:
    """Process ids of each job."""
    found: dict[str, list[int]] = {"chief": [os.getpid()], "worker": [], "ps": []}
    for process in psutil.Process().children(recursive=True):
        config = process.environ().get("TF_CONFIG")
        if config is not None:
            found[json.loads(config)["task"]["type"]].append(process.pid)
    return found


def peak(pid: int) -> int:
    """Bytes of memory that a process held at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) << 10


def ps_bytes() -> np.ndarray:
    """Sent and received by all ps."""
    return np.sum([tcp_bytes(pid) for pid in tasks()["ps"]], axis=0)


def peaks() -> dict[str, list[int]]:
    """Of each job's processes."""
    return {job: [peak(pid) for pid in pids] for job, pids in tasks().items()}


def batches(rows: int) -> tf.data.Dataset:
    """Ids and what they stand for together."""
    random = np.random.default_rng(0)
    ids = random.integers(0, rows, (BATCH * STEPS, IDS)).astype("int32")
    targets = random.standard_normal((len(ids), 1)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((ids, targets)).batch(BATCH)


def make_model(rows: int, optimizer: Any) -> keras.Model:
    """One in which only the table can learn."""
    total = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False, trainable=False)
    layers = [keras.layers.Embedding(rows, WIDTH), keras.layers.GlobalAveragePooling1D(), total]
    model = keras.Sequential([keras.Input((IDS,), dtype="int32"), *layers])
    model.compile(optimizer, "mse")
    return model


def main(results: Path) -> None:
    """Train, and write what it took."""
    with tfdist.cluster.local(workers=2, ps=2) as cluster:
        begun = peaks()
        shards = tf.distribute.experimental.partitioners.FixedShardsPartitioner(2)
        strategy = tfdist.ParameterServerStrategy(cluster, variable_partitioner=shards)
        data = batches(ROWS)
        with strategy.scope():
            model = make_model(ROWS, keras.optimizers.SGD(2.0))
        losses = model.fit(data, verbose=0).history["loss"]
        before = ps_bytes()
        losses += model.fit(data, verbose=0).history["loss"]
        sent, received = (ps_bytes() - before).tolist()
        evaluated = model.evaluate(data, verbose=0)
        predicted = model.predict(data, verbose=0)
        targets = np.concatenate([batch[1] for batch in data])
        found: dict[str, Any] = {
            "begun": begun,
            "peaks": peaks(),
            "sent": sent,
            "received": received,
            "losses": [*losses, evaluated],
            "predicted": float(np.mean((predicted - targets) ** 2)),
        }
        with strategy.scope():
            with_slots = make_model(SLOT_ROWS, keras.optimizers.Adagrad(1.0))
        found["losses_with_slots"] = with_slots.fit(batches(SLOT_ROWS), epochs=2, verbose=0).history["loss"]
        found["peaks_with_slots"] = peaks()
    results.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
