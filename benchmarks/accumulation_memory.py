"""Bytes of the accumulators, and the largest memory of a process that trains with the same rows in K micro-batches.

python benchmarks/accumulation_memory.py
"""

from __future__ import annotations

import gc
import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS = 1024
HIDDEN = (4096, 2048)
OPTIMIZER_STEPS = 2
IMAGES = 256
TIMEOUT_SECONDS = 120
#: K, the model's dtype, the accumulators' dtype.
CASES = [
    (1, "float32", None),
    (4, "float32", None),
    (16, "float32", None),
    (1, "bfloat16", None),
    (16, "bfloat16", None),
    (16, "bfloat16", "float32"),
]


def measure(steps: int, dtype: str, accumulator_dtype: str | None) -> tuple[int, int, int]:
    """Train a wide perceptron on one device.

    Returns:
        Bytes of the model's weights, of the accumulators, and by how much the process grew at most.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    import tfdist

    keras.config.set_dtype_policy(dtype)
    strategy = tfdist.OneDeviceStrategy(
        gradient_accumulation_steps=tfdist.gradients.AccumulationOptions(steps, dtype=accumulator_dtype)
    )
    x, y = np.random.rand(ROWS, 784).astype("float32"), np.random.randint(0, 10, ROWS)
    tf.matmul(x, x, transpose_b=True)  # TensorFlow's own start is not counted
    before = resident_bytes()
    with strategy.scope():
        hidden = [keras.layers.Dense(units, activation="relu") for units in HIDDEN]
        model = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10, dtype="float32")])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=ROWS // steps, epochs=OPTIMIZER_STEPS, verbose=0)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights = sum(bytes_of(variable.value) for variable in model.trainable_variables)
    accumulators = [v for v in gc.get_objects() if isinstance(v, tf.Variable) and "gradient_accumulator" in v.name]
    return weights, sum(bytes_of(variable) for variable in accumulators), peak - before


def measure_activations(steps: int, splits: int) -> int:
    """Train a convolutional model, whose activations are large, on one device; by how much the process grew at most."""
    import keras
    import numpy as np
    import tensorflow as tf

    import tfdist

    options = tfdist.gradients.AccumulationOptions(steps, splits=splits)
    strategy = tfdist.OneDeviceStrategy(gradient_accumulation_steps=options)
    x, y = np.random.rand(IMAGES, 64, 64, 3).astype("float32"), np.random.randint(0, 10, IMAGES)
    tf.matmul(x[:, 0, :, 0], x[:, 0, :, 0], transpose_b=True)
    before = resident_bytes()
    with strategy.scope():
        layers = [keras.layers.Conv2D(32, 3, padding="same", activation="relu") for _ in range(3)]
        pool = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
        model = keras.Sequential([keras.Input((64, 64, 3)), *layers, *pool])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=IMAGES // steps, epochs=OPTIMIZER_STEPS, verbose=0)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def bytes_of(variable: Any) -> int:
    return variable.shape.num_elements() * variable.dtype.size


def resident_bytes() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    print(f"\nMemory: {ROWS} rows an optimizer step in K micro-batches, megabytes")
    print("| dtype | accumulators' dtype | K | weights | accumulators | process at most |")
    print("|---|---|---|---|---|---|")
    for steps, dtype, accumulator_dtype in CASES:
        sizes = in_a_process(measure, steps, dtype, accumulator_dtype)
        weights, accumulators, peak = (size / 1e6 for size in sizes)
        print(
            f"| {dtype} | {accumulator_dtype or 'the same'} | {steps} "
            f"| {weights:.1f} | {accumulators:.1f} | {peak:.0f} |",
            flush=True,
        )
    print(f"\nActivations: {IMAGES} images an optimizer step, megabytes")
    print("| steps | splits | process at most |")
    print("|---|---|---|")
    for steps, splits in ((1, 1), (8, 1), (1, 8)):
        print(f"| {steps} | {splits} | {in_a_process(measure_activations, steps, splits) / 1e6:.0f} |", flush=True)


def in_a_process(measure: Callable[..., Any], *arguments: Any) -> Any:
    """What `measure` returns in a process of its own, since the largest memory of a process never falls."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply_async(measure, arguments).get(TIMEOUT_SECONDS)


if __name__ == "__main__":
    main()
