"""All devices of one machine: the GPUs, or on a machine without GPUs two halves of its CPU.

python examples/single_host.py
python examples/single_host.py --data=mnist --epochs=2
"""

from __future__ import annotations

import argparse

import keras
import tensorflow as tf
from common import build_model, compile_model, load_data

import tfdist


def devices() -> list[str]:
    """All GPUs; without any, the CPU cut into two logical devices."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return [f"GPU:{index}" for index in range(len(gpus))]
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return ["CPU:0", "CPU:1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    strategy = tfdist.MirroredStrategy(devices())  # the only line that changes
    keras.utils.set_random_seed(0)
    train, test = load_data(args.data, args.batch_size)
    with strategy.scope():
        model = build_model(args.data)
        compile_model(model)

    model.fit(train, epochs=args.epochs, validation_data=test, shuffle=False, verbose=2)
    results = model.evaluate(test, verbose=0, return_dict=True)
    print(f"replicas: {strategy.num_replicas_in_sync}, accuracy: {results['accuracy']:.4f}")


if __name__ == "__main__":
    main()
