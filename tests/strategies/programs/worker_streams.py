"""Fits on data that has a stream for each of two workers, and what was seen of it.

python -m tests.strategies.programs.worker_streams OUTPUT
"""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import tfdist
from tests.helpers.seen import Ids, seen

ROWS, BATCH = 100, 4
#: Of the second worker's stream, which is at its end before the first one's.
SHORT = 10


def uneven(context: Any) -> tf.data.Dataset:
    rows = tf.data.Dataset.range(ROWS).shard(context.num_input_pipelines, context.input_pipeline_id)
    if context.input_pipeline_id == 1:
        rows = rows.take(SHORT)
    return rows.shuffle(ROWS).map(lambda i: (tf.cast(i, tf.float32)[None] / ROWS, tf.cast(i, tf.float32))).batch(BATCH)


def with_python(context: Any) -> tf.data.Dataset:
    def unchanged(x: Any, y: Any) -> tuple[Any, Any]:
        return tf.ensure_shape(tf.py_function(lambda value: value, [x], tf.float32), [None, 1]), y

    return uneven(context).map(unchanged)


def main(output: Path) -> None:
    made_before = uneven(tf.distribute.InputContext())
    python_made_before = with_python(tf.distribute.InputContext())
    with tfdist.cluster.local(workers=2, ps=1) as cluster:
        results: dict[str, Any] = {}
        try:
            tfdist.ParameterServerStrategy(cluster, replicas_per_worker=2)
        except tfdist.errors.ClusterError as error:
            results["too many replicas"] = str(error)
        strategy = tfdist.ParameterServerStrategy(cluster)
        with strategy.scope():
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
            model.compile(keras.optimizers.SGD(1e-6), "mse", metrics=[Ids()])

        def fit(function: Callable[[Any], tf.data.Dataset], **options: Any) -> dict[str, Any]:
            data = strategy.distribute_datasets_from_function(function)
            history = model.fit(data, verbose=0, **options)
            return {"counts": Counter(seen), "epochs": len(history.epoch), "steps": strategy.reported_steps}

        data = strategy.distribute_datasets_from_function(uneven)
        results |= {
            "read by workers": fit(uneven, epochs=2),
            "fed": fit(with_python, epochs=2),
            "without an end": fit(lambda context: uneven(context).repeat(), epochs=2, steps_per_epoch=7),
            "class weights": fit(uneven, class_weight=dict.fromkeys(range(ROWS), 1.0)),
        }
        results["predicted, made before"] = model.predict(made_before, verbose=0).shape
        try:
            model.fit(python_made_before, verbose=0)
        except ValueError as error:
            results["Python, made before"] = str(error)
        results["predicted"] = model.predict(data, verbose=0).shape
        model.compile(model.optimizer, "mse", metrics=[Ids()], steps_per_execution=3)
        results["3 steps an execution"] = fit(uneven, epochs=2)
        model.evaluate(data, verbose=0)
        results["evaluated"] = Counter(seen)
    output.write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
