"""Asynchronous training: workers train on batches of their own, a parameter server holds the variables.

    tfdist launch --workers=4 --ps=1 examples/parameter_server.py
    tfdist launch --workers=4 --ps=1 examples/parameter_server.py --data=mnist --epochs=2

Every task runs this script: on workers and parameter servers making the strategy serves until the chief is done.
Without the launcher it starts two workers and a parameter server by itself: python examples/parameter_server.py
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

import keras
from common import build_model, compile_model, load_data

import tfdist


@contextlib.contextmanager
def cluster(ps: int = 1) -> Iterator[tfdist.cluster.Cluster]:
    """The job's, or one that is made here for as long as the context lasts."""
    job = tfdist.cluster.resolve()
    if not job.is_local:
        yield job
    else:
        with tfdist.cluster.local(workers=2, ps=ps) as own:
            yield own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--batch_size", type=int, default=32, help="rows of one worker's step")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--save", help="where to write the trained model, a .keras file")
    args = parser.parse_args()

    with cluster() as job:
        strategy = tfdist.ParameterServerStrategy(job)  # the chief goes on from here
        keras.utils.set_random_seed(0)
        with strategy.scope():
            train, test = load_data(args.data, args.batch_size)
            model = build_model(args.data)
            compile_model(model)

        model.fit(train, epochs=args.epochs, validation_data=test, shuffle=False, verbose=2)
        results = model.evaluate(test, verbose=0, return_dict=True)
        if args.save:
            model.save(args.save)
        workers = len(job.addresses("worker"))
        print(f"workers: {workers}, steps: {int(model.optimizer.iterations)}, accuracy: {results['accuracy']:.4f}")


if __name__ == "__main__":
    main()
