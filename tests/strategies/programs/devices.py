"""Where the batches of TFRecords are when a step asks for them; two logical CPUs stand for two accelerators."""

from __future__ import annotations

import tensorflow as tf

import tfdist


def main() -> None:
    """Each replica's rows are on its device already."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
    strategy = tfdist.MirroredStrategy(["CPU:1", "CPU:2"])
    data = strategy.experimental_distribute_dataset(tfdist.data.digits("test", batch_size=50))
    images, labels = next(iter(data))
    for value in (images, labels):
        devices = [one.device.rsplit("/device:")[-1] for one in strategy.experimental_local_results(value)]
        assert devices == ["CPU:1", "CPU:2"], devices


if __name__ == "__main__":
    main()
