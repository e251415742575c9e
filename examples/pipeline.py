"""A CNN for handwritten digits in two stages: two GPUs, or on a machine without them two halves of its CPU.

python examples/pipeline.py
python examples/pipeline.py --micro_batches=8 --schedule=gpipe
"""

from __future__ import annotations

import argparse

import keras
import tensorflow as tf
from common import build_model, compile_model, load_data

import tfdist


def devices() -> list[str]:
    """Two GPUs; without them the CPU cut into two logical devices."""
    if len(tf.config.list_physical_devices("GPU")) >= 2:
        return ["GPU:0", "GPU:1"]
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return ["CPU:0", "CPU:1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--micro_batches", type=int, default=4)
    parser.add_argument("--schedule", choices=["1f1b", "gpipe"], default="1f1b")
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    strategy = tfdist.PipelineStages(devices(), micro_batches=args.micro_batches, schedule=args.schedule)
    keras.utils.set_random_seed(0)
    train, test = load_data("digits", args.batch_size)
    with strategy.scope():
        model = build_model("digits")
        compile_model(model)
    print(strategy.summary(model, batch_size=args.batch_size))

    model.fit(train, epochs=args.epochs, validation_data=test, verbose=2)
    results = model.evaluate(test, verbose=0, return_dict=True)
    print(f"stages: {len(strategy.stages_of(model))}, accuracy: {results['accuracy']:.4f}")


if __name__ == "__main__":
    main()
