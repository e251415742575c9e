"""Trains with `fit` of Keras on JAX, data parallel over the processes. Options: hidden. Requests: rows, steps."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.harness.task import Measure, Task, peak_bytes, serve
from benchmarks.tasks import contest

WARM_UP = 5


def prepare(task: Task) -> Measure:
    os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    import jax
    import keras

    imported, before = task.seconds_since_start(), peak_bytes()
    if task.workers > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(task.addresses[0], num_processes=task.workers, process_id=task.index)
        # Set for all of the process: `fit` is outside of a scope. Each process has its own rows.
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(devices=jax.devices(), auto_shard_dataset=False)
        )
    connected = task.seconds_since_start()
    keras.utils.set_random_seed(0)
    features, *hidden, classes = contest.widths(task.options)
    layers = [keras.layers.Dense(units, activation="relu") for units in hidden]
    model = keras.Sequential([keras.layers.Input((features,)), *layers, keras.layers.Dense(classes)])
    optimizer = keras.optimizers.SGD(contest.RATE, momentum=contest.MOMENTUM)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    first = contest.FirstStep(task.seconds_since_start)

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        steps, count = request["steps"] + WARM_UP, request["rows"]
        x, y = contest.rows(count * contest.BATCHES, features, task.index)
        repeats = -(-steps // contest.BATCHES)
        x, y = (array_repeated(array, repeats)[: steps * count] for array in (x, y))
        clock = contest.Clock(WARM_UP, first.note)
        model.fit(x, y, batch_size=count, shuffle=False, verbose=0, callbacks=[contest.tick_of(keras, clock)])
        return {
            **clock.measured(),
            "imported": imported,
            "connected": connected,
            "first_step": first.seconds,
            "before": before,
            "peak": peak_bytes(),
        }

    return measure


def array_repeated(array: Any, times: int) -> Any:
    """Batches again and again."""
    import numpy as np

    return np.concatenate([array] * times)


if __name__ == "__main__":
    serve(prepare)
