"""The functions that Keras' `fit`, `evaluate` and `predict` call, under HybridParallelStrategy.

An execution is `steps_per_execution` calls of one compiled step, since a batch of the mesh can't come out of an
iterator inside a function. Keras' step is traced for any number of rows, as on one device; DTensor compiles the trace
for each number that comes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.experimental import dtensor

from tfdist._compat import hooks
from tfdist._compat.keras_optimizers import accumulation_of
from tfdist._compat.tensorflow import python_function
from tfdist.parallel.limits import check_graph, explained
from tfdist.parallel.transfer import fetched, replicated

Logs = Any


class MeshStepFunction:
    """Train or test function of one model; call it with an iterator of batches.

    Args:
        strategy: a HybridParallelStrategy.
        model: a compiled Keras model.
        step: `model.train_step` or `model.test_step`.
        training: which of them.
    """

    def __init__(self, strategy: Any, model: Any, step: Callable[[Any], Any], *, training: bool) -> None:
        self._strategy, self._model, self._steps = strategy, model, int(model.steps_per_execution)
        step = python_function(step)
        if training and strategy.accumulates(model.optimizer):
            strategy.begin_traces(model.optimizer)
            step = accumulation_of(model.optimizer).counting_rows(step)
        self._step = compiled(strategy, model, step, whole=True)

    def __call__(self, iterator: Iterable[Any]) -> Logs:
        """Run one execution; raises StopIteration when the data is at its end."""
        if hooks.is_first_of_fit(self._model, "step"):
            self._strategy.check_before_steps(self._model)
        batches, peers = iter(iterator), self._strategy.peers
        with peers.explained():
            batch = next(batches, None)
        if batch is None:
            peers.end_round()
            raise StopIteration
        with peers.execution():
            logs = self._step(batch)
            for batch in itertools.islice(batches, self._steps - 1):
                logs = self._step(batch)
            return tf.nest.map_structure(fetched, logs)


def predict_function(strategy: Any, model: Any) -> Callable[[list[Any]], Any]:
    """What `predict` calls: a list of batches in, their outputs' rows out, in order."""
    step = compiled(strategy, model, model.predict_step, whole=False)

    def predict(batches: list[Any]) -> Any:
        with strategy.peers.execution():
            outputs = [tf.nest.map_structure(fetched, step(batch)) for batch in batches]
        if len(outputs) == 1:
            return outputs[0]
        with tf.device("CPU:0"):
            return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *outputs)

    return predict


def compiled(strategy: Any, model: Any, step: Callable[[Any], Any], *, whole: bool) -> Callable[[Any], Any]:
    """A step of Keras' as a function of a batch.

    Args:
        strategy: a HybridParallelStrategy.
        model: whose step it is.
        step: a function of a batch.
        whole: whether each device is to have all of what it returns.
    """

    @tf.autograph.experimental.do_not_convert
    def run(batch: Any) -> Any:
        outputs = strategy.run_keras_step(step, batch)
        return tf.nest.map_structure(lambda value: on_all(strategy.mesh, value), outputs) if whole else outputs

    functions: dict[Any, Any] = {}

    def function_for(batch: Any, leaves: list[Any]) -> Any:
        """One for each kind of batch; of its tensors alone, since a signature can't hold a None."""
        tensors = [any_rows(leaf) for leaf in leaves if tf.is_tensor(leaf)]
        rest = [None if tf.is_tensor(leaf) else (leaf,) for leaf in leaves]
        key = (strategy.is_split(batch), *map(str, tensors), str(rest), str(tf.nest.map_structure(lambda _: 0, batch)))
        if key not in functions:

            def of_tensors(*tensors: tf.Tensor) -> Any:
                given = iter(tensors)
                flat = [next(given) if one is None else one[0] for one in rest]
                return run(tf.nest.pack_sequence_as(batch, flat))

            functions[key] = tf.function(of_tensors, input_signature=tensors, autograph=False).get_concrete_function()
            check_graph(functions[key].graph)
        return functions[key]

    def call(batch: Any) -> Any:
        batch = strategy.split_batch(batch)
        leaves = tf.nest.flatten(batch)
        with dtensor.default_mesh(strategy.mesh), strategy.computing_on(batch):
            if model.run_eagerly:
                with explained(None):
                    return run(batch)
            function = function_for(batch, leaves)
            with explained(function.graph):
                return function(*[leaf for leaf in leaves if tf.is_tensor(leaf)])

    return call


def on_all(mesh: dtensor.Mesh, value: Any) -> Any:
    """A number in the logs, whole on each device."""
    if isinstance(value, (bool, int, float, np.number)):
        value = tf.convert_to_tensor(value)
    if not tf.is_tensor(value) or (tf.executing_eagerly() and not dtensor.is_dtensor(value)):
        return value
    return dtensor.relayout(tf.convert_to_tensor(value), replicated(mesh, value.shape.rank))


def any_rows(leaf: tf.Tensor) -> tf.TensorSpec:
    """The specification of a tensor of a batch, with any number of rows, as Keras' own data sets have it."""
    return tf.TensorSpec(leaf.shape if leaf.shape.rank == 0 else [None, *leaf.shape[1:]], leaf.dtype)
