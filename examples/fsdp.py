"""FSDP: rows of the batch, and the parameters, gradients and slots of a transformer, are split over four devices.

python examples/fsdp.py

Each device keeps a quarter of every variable that four divides, and gathers what a layer computes with.
"""

from __future__ import annotations

import argparse

import keras
from char_transformer import build_model, load_text

import tfdist


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()

    strategy = tfdist.HybridParallelStrategy(
        {"batch": args.devices}, zero_stage=3, devices=tfdist.layouts.logical_cpus(args.devices)
    )
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build_model()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    report = strategy.summary(model)
    history = model.fit(load_text(64).repeat(), epochs=2, steps_per_epoch=args.steps // 2, verbose=2)
    share = report.parameter_bytes / (4 * model.count_params())  # float32
    print(f"devices: {args.devices}, share: {share:.2f}, accuracy: {history.history['accuracy'][-1]:.4f}")


if __name__ == "__main__":
    main()
