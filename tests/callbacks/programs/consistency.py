"""Trains while one bit of one replica's weights is turned over, under a ConsistencyGuard.

`python -m tests.callbacks.programs.consistency DEVICES WORKER REPLICA`: of which worker, and of which of its DEVICES
replicas; WORKER -1 for none.
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist
from tfdist.errors import WorkersDisagreeError

#: Six steps an epoch; the bit is turned in the second epoch, before the comparison after step 12.
ROWS, BATCH_SIZE, EPOCHS, EVERY, TURNED_AT = 48, 8, 3, 4, (1, 2)


class TurnBit(keras.callbacks.Callback):
    """Turns over a bit of an element; not the last one, which an update may round away."""

    def __init__(self, replica: int) -> None:
        super().__init__()
        self._replica, self._epoch = replica, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == TURNED_AT:
            bias = self.model.get_layer("hidden").bias
            copy = self.model.distribute_strategy.experimental_local_results(bias.value)[self._replica]
            bits = copy.numpy().view(np.uint32)
            bits[3] ^= 1 << 12
            copy.assign(bits.view(np.float32))


def main(devices: int, worker: int, replica: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    cpus = [f"CPU:{index}" for index in range(devices)]
    strategy = tfdist.MirroredStrategy(cpus) if devices > 1 else tfdist.MultiWorkerMirroredStrategy()
    keras.utils.set_random_seed(1)
    with strategy.scope():
        layers = [keras.layers.Dense(8, "tanh", name="hidden"), keras.layers.BatchNormalization()]
        model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2)])
        model.compile(keras.optimizers.Adam(), "mse", metrics=["mae"])
    x = np.random.RandomState(0).randn(ROWS, 4).astype("float32")
    callbacks: list[Any] = [tfdist.callbacks.ConsistencyGuard(every_steps=EVERY)]
    callbacks += [TurnBit(replica)] if strategy.worker_index == worker else []
    try:
        model.fit(x, x[:, :2], batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    except WorkersDisagreeError as error:
        print(f"STOPPED at step {int(model.optimizer.iterations)}: {error}")
    else:
        print(f"trained {int(model.optimizer.iterations)} steps")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
