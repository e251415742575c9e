"""Several machines, or several processes of one: the same script on every worker.

    tfdist launch --workers=2 examples/multi_worker.py
    tfdist launch --workers=2 examples/multi_worker.py --data=mnist --epochs=2

Without the launcher it trains on one worker: python examples/multi_worker.py
"""

from __future__ import annotations

import argparse

import keras
from common import build_model, compile_model, load_data

import tfdist


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--batch_size", type=int, default=64, help="rows of all workers together")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--save", help="where to write the trained model, a .keras file")
    args = parser.parse_args()

    strategy = tfdist.MultiWorkerMirroredStrategy()  # first, before TensorFlow uses a device
    keras.utils.set_random_seed(0)
    train, test = load_data(args.data, args.batch_size)
    with strategy.scope():
        model = build_model(args.data)
        compile_model(model)

    model.fit(train, epochs=args.epochs, validation_data=test, shuffle=False, verbose=2)
    results = model.evaluate(test, verbose=0, return_dict=True)
    if args.save:
        model.save(args.save)  # on every worker: only the chief writes
    print(f"replicas: {strategy.num_replicas_in_sync}, accuracy: {results['accuracy']:.4f}")


if __name__ == "__main__":
    main()
