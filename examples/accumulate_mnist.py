"""A large batch on small memory: several micro-batches, one exchange between workers, one optimizer step.

    python examples/accumulate_mnist.py
    tfdist launch --workers=2 examples/accumulate_mnist.py --data=mnist

Trains on MNIST in batches of 4,096 where TFDIST_DATA_DIR names a folder with mnist.npz (or with --data=mnist, which
downloads it), else on the digits that come with tfdist, in batches of 256.
"""

from __future__ import annotations

import argparse
import os

import keras
from common import build_model, compile_model, load_data

import tfdist

ROWS = {"digits": 1437, "mnist": 60_000}
GLOBAL_BATCHES = {"digits": 256, "mnist": 4096}
# Large batches take fewer steps, which may be longer.
LEARNING_RATE = 4e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "mnist" if os.environ.get("TFDIST_DATA_DIR") else "digits"
    parser.add_argument("--data", choices=["digits", "mnist"], default=default)
    parser.add_argument("--global_batch", type=int, help="rows of an optimizer step, of all workers together")
    parser.add_argument("--gradient_accumulation_steps", type=int, default=8, help="micro-batches to one of them")
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    strategy = tfdist.MultiWorkerMirroredStrategy(gradient_accumulation_steps=args.gradient_accumulation_steps)
    keras.utils.set_random_seed(0)
    sizes = tfdist.gradients.BatchSizes(
        global_batch=args.global_batch or GLOBAL_BATCHES[args.data],
        replicas=strategy.num_replicas_in_sync,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
    )
    if strategy.is_chief:
        print(sizes)
        print(f"{sizes.micro_batches(ROWS[args.data])} micro-batches, "
              f"{sizes.optimizer_steps(ROWS[args.data])} optimizer steps an epoch of {args.data}")  # fmt: skip

    # A dataset's batch is one micro-batch, of all workers together.
    train, test = load_data(args.data, sizes.micro_batch)
    with strategy.scope():
        model = build_model(args.data)
        compile_model(model, LEARNING_RATE)
    model.fit(train, epochs=args.epochs, validation_data=test, shuffle=False, verbose=2)
    results = model.evaluate(test, verbose=0, return_dict=True)
    print(f"optimizer steps: {int(model.optimizer.iterations)}")
    print(f"replicas: {strategy.num_replicas_in_sync}, accuracy: {results['accuracy']:.4f}")


if __name__ == "__main__":
    main()
