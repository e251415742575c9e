"""One contender of benchmarks/model_parallel.py: trains when it is told to, and says how long it took.

Started by it with KERAS_BACKEND set; imports tfdist for the contenders that are tfdist's only. Reads numbers of steps
from its standard input, one a line, and writes a line of JSON for each.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

#: Heads of attention, Dense layers in pairs and the head by their columns or rows: tfdist.layouts.transformer().
LAYOUTS: dict[str, tuple[str | None, ...]] = {
    ".*/(query|key|value)/kernel": (None, "model", None),
    ".*/(query|key|value)/bias": ("model", None),
    ".*/attention_output/kernel": ("model", None, None),
    ".*(up|head)[_0-9]*/kernel": (None, "model"),
    ".*down[_0-9]*/kernel": ("model", None),
    ".*embeddings": (None, "model"),
}
WARM_UP_STEPS = 3


def strategy_of(contender: str, batch: int, model: int) -> contextlib.AbstractContextManager[Any]:
    """What the model is made in."""
    devices = batch * model
    if contender == "one device":
        return contextlib.nullcontext()
    if contender.startswith("jax"):
        mesh = keras.distribution.DeviceMesh((batch, model), ["batch", "model"], keras.distribution.list_devices())
        layout_map = keras.distribution.LayoutMap(mesh)
        for key, layout in LAYOUTS.items():
            layout_map[key] = layout
        # For `fit` as well, which is outside of a scope.
        keras.distribution.set_distribution(
            keras.distribution.ModelParallel(layout_map=layout_map, batch_dim_name="batch")
        )
        return contextlib.nullcontext()
    import tfdist

    names = tfdist.layouts.logical_cpus(devices)
    if contender == "mirrored":
        return tfdist.MirroredStrategy(names).scope()
    mesh = {"batch": batch, "model": model}
    stage = 3 if contender == "hybrid, FSDP" else 0
    return tfdist.HybridParallelStrategy(mesh, LAYOUTS, zero_stage=stage, devices=names).scope()


def build(options: dict[str, int]) -> keras.Model:
    """A decoder of characters."""
    width, inputs = options["width"], keras.Input((options["time"],), dtype="int32")
    hidden = keras.layers.Embedding(options["vocabulary"], width)(inputs)
    for number in range(options["blocks"]):
        normal = keras.layers.LayerNormalization()(hidden)
        hidden = hidden + keras.layers.MultiHeadAttention(4, width // 4)(normal, normal, use_causal_mask=True)
        normal = keras.layers.LayerNormalization()(hidden)
        wide = keras.layers.Dense(4 * width, activation="gelu", name=f"up_{number}")(normal)
        hidden = hidden + keras.layers.Dense(width, name=f"down_{number}")(wide)
    return keras.Model(inputs, keras.layers.Dense(options["vocabulary"], name="head")(hidden))


def status(key: str) -> float:
    """Of this process' memory, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key))) / 1024


def main() -> None:
    contender, options = sys.argv[1], json.loads(sys.argv[2])
    keras.utils.set_random_seed(0)
    with strategy_of(contender, options["batch"], options["model"]):
        before = status("VmRSS")
        model = build(options)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile="auto")
    shape = (options["batch_size"], options["time"])
    x, y = np.random.default_rng(0).integers(0, options["vocabulary"], (2, *shape)).astype("int32")

    def train(steps: int) -> float:
        many = [np.tile(array, (steps, 1)) for array in (x, y)]
        begin = time.perf_counter()
        model.fit(*many, batch_size=shape[0], shuffle=False, verbose=0)
        return (time.perf_counter() - begin) / steps

    train(WARM_UP_STEPS)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = train(int(line))
        print(json.dumps({"seconds": seconds, "peak": status("VmHWM"), "added": status("VmHWM") - before}), flush=True)


if __name__ == "__main__":
    main()
