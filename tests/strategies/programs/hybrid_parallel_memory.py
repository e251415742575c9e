"""`python -m tests.strategies.programs.hybrid_parallel_memory FOLDER`: a model that is larger than the memory allowed.

A worker of a job, or one process, may take LIMIT_BYTES beside what TensorFlow and a small model have taken, and is
killed if it takes more; the model's parameters are PARAMETER_BYTES. It is made, trained, saved and loaded. Writes
FOLDER/RANK.json: how much memory was taken at most until then, and whether what was loaded is what was saved.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tensorflow.experimental import dtensor

import tfdist

#: Of a model of four pairs of layers; four workers hold a quarter each.
WIDTH, HIDDEN, PAIRS = 2048, 16384, 4
PARAMETER_BYTES = PAIRS * 2 * WIDTH * HIDDEN * 4
#: A quarter of the parameters, as much of their gradients, blocks, and what allocators keep.
LIMIT_BYTES = PARAMETER_BYTES * 9 // 10
DEVICES = 4
#: Of a watch that is to see what lasts as long as a variable's initial value.
WATCH_SECONDS = 0.01
LAYOUTS = {r".*up.*/kernel": (None, "model"), r".*down.*/kernel": ("model", None)}


def status(name: str) -> int:
    """Bytes, of this process, as the system counts them."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def limit_memory(size_bytes: int) -> None:
    """From now on this process is killed when more than this is resident, as the system does to a container's."""

    def watch() -> None:
        while status("VmRSS") < size_bytes:
            threading.Event().wait(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def build(width: int, hidden: int, pairs: int) -> keras.Model:
    value = inputs = keras.Input((width,))
    for pair in range(pairs):
        wide = keras.layers.Dense(hidden, "relu", use_bias=False, name=f"up{pair}")(value)
        value = keras.layers.Dense(width, use_bias=False, name=f"down{pair}")(wide)
    model = keras.Model(inputs, value)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def fit(model: keras.Model, callbacks: list[Any]) -> None:
    x = np.random.RandomState(0).randn(2, model.input_shape[1]).astype("float32")
    model.fit(x, -x, batch_size=2, verbose=0, callbacks=callbacks)


def sums(model: keras.Model) -> list[float]:
    """Of what this process' devices hold of each variable."""
    found = []
    for variable in model.trainable_variables:
        parts = dtensor.unpack(variable.value.read_value())
        found += [float(np.add.reduce(part.numpy(), axis=None, dtype=np.float64)) for part in parts]
    return found


def main(folder: Path) -> None:
    workers = len(json.loads(os.environ.get("TF_CONFIG", '{"cluster": {"worker": [0]}}'))["cluster"]["worker"])
    devices = tfdist.layouts.logical_cpus(DEVICES // workers)
    strategy = tfdist.HybridParallelStrategy({"model": DEVICES}, LAYOUTS, devices=devices)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        fit(build(8, 16, 1), [tfdist.callbacks.Checkpoint(folder / "small")])
    found: dict[str, Any] = {}
    before = status("VmRSS")
    limit_memory(before + LIMIT_BYTES)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew

    def note(what: str) -> None:
        found[what] = status("VmHWM") - before
        print(what, found[what], flush=True)

    with strategy.scope():
        model = build(WIDTH, HIDDEN, PAIRS)
    note("made")
    fit(model, [tfdist.callbacks.Checkpoint(folder / "large")])
    note("trained and saved")
    saved = sums(model)
    fit(model, [])
    moved = sums(model) != saved
    tfdist.checkpoint.load_weights(model, folder / "large")
    note("loaded")
    found["what was saved"] = moved and sums(model) == saved
    (folder / f"{strategy.worker_index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
