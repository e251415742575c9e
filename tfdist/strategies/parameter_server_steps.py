"""The functions that Keras' `fit`, `evaluate` and `predict` call under ParameterServerStrategy.

A call hands one execution to the coordinator and returns what has landed meanwhile, so callbacks see the logs of
executions that have ended; before an epoch ends all of them have landed.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat import tensorflow_parameter_server as compat
from tfdist._compat.keras_metrics import record_results
from tfdist._compat.keras_trainer import flatten_layers
from tfdist._compat.keras_worker_variables import moving_averages, on_worker
from tfdist._compat.tensorflow import python_function
from tfdist.coordination.feeding import Feed
from tfdist.coordination.flights import Flights
from tfdist.coordination.metrics import Updates, metrics_of
from tfdist.coordination.reports import ReportFormat
from tfdist.coordination.worker_step import WorkerStep
from tfdist.strategies.logs import Logs, LogSources, Values, metric_results

_numbers = itertools.count()
_WORKER_SPEC = tf.TensorSpec([], tf.int32)


class CoordinatedFunction:
    """Train or test function of one model; call it with a feed.

    Args:
        strategy: ParameterServerStrategy.
        model: a compiled Keras model.
        step: `model.train_step` or `model.test_step`.
        training: whether it's the former.
    """

    def __init__(self, strategy: Any, model: Any, step: Callable[[Any], Any], *, training: bool) -> None:
        self._strategy, self._model, self._training = strategy, model, training
        self._flights: Flights = strategy.flights
        self._step = python_function(step)
        self._steps = int(model.steps_per_execution)
        self._functions: dict[Any, _WorkerFunction] = {}
        self._latest: Logs | None = None
        self._feed: Feed | None = None
        record_results(model.metrics)

    def __call__(self, feed: Any) -> Logs:
        """Begin one execution; raises StopIteration when the data is at its end and all have landed."""
        if not isinstance(feed, Feed):
            return self._on_batch(next(feed))
        if self._training and hooks.is_first_of_fit(self._model, "step"):
            self._strategy.check_before_steps(self._model)
        try:
            batches = feed.take(self._steps)
        except StopIteration:
            self._flights.take_all()
            raise
        if feed is not self._feed or not len(self._flights):
            self._feed, self._latest = feed, None
        self._begin(batches, feed.spec)
        while self._latest is None or self._flights.is_full:
            self._flights.take_first()
        return self._latest

    def _on_batch(self, batch: Any) -> Logs:
        """`train_on_batch`, `test_on_batch`."""
        batch = _tensors(batch)
        self._latest = None
        self._begin([batch], tf.nest.map_structure(_any_rows, batch))
        self._flights.take_all()
        return self._latest or {}

    def _begin(self, batches: list[Any], spec: Any) -> None:
        key = (len(batches), str(spec))
        if key not in self._functions:
            self._functions[key] = _WorkerFunction(self._strategy, self._model, self._step, spec, len(batches))
        function = self._functions[key]
        workers = self._strategy.worker_indices
        self._flights.begin(
            function.on_worker,
            lambda worker: (workers[worker], *batches),
            lambda result: self._landed(function, result),
        )

    def _landed(self, function: _WorkerFunction, result: Any) -> None:
        logs = function.absorb(result)
        if self._latest is None:
            self._latest = logs
        else:
            # The same object: Keras reads an epoch's logs from what the last call returned.
            self._latest.update(logs)


class _WorkerFunction:
    """Some of Keras' steps in one remote call, and what the chief does with its report."""

    def __init__(self, strategy: Any, model: Any, step: Callable[[Any], Any], spec: Any, steps: int) -> None:
        self._strategy, self._model, self._step = strategy, model, step
        self._logs, self._format = LogSources(), ReportFormat()
        self._metrics = metrics_of(model)
        self._updates: list[Updates] = []
        self._moving = _moving_averages_of(model)
        self._name = f"tfdist/metrics/{next(_numbers)}"
        run = tf.autograph.experimental.do_not_convert(self._run)
        with compat.tracing_for_workers(strategy):
            self.on_worker = tf.function(run).get_concrete_function(_WORKER_SPEC, *[spec] * steps)
        self._add = tf.function(tf.autograph.experimental.do_not_convert(self._add_report))

    def _run(self, worker: tf.Tensor, *batches: Any) -> tuple[tf.Tensor, list[list[tf.Tensor]]]:
        """On a worker: the report, and arguments of metrics that the chief updates, a list a step."""
        with on_worker(self._metrics.summed_variables, self._name) as totals:
            others, arguments = self._one_step(worker, batches[0])
            sent = [arguments]
            if len(batches) > 1 and not self._metrics.updated:
                others = self._remaining_steps(worker, batches, others)
            elif self._metrics.updated:
                for batch in batches[1:]:
                    others, arguments = self._one_step(worker, batch)
                    sent.append(arguments)
            return self._format.pack([*others, *(total.read_value() for total in totals)]), sent

    def _remaining_steps(self, worker: tf.Tensor, batches: tuple[Any, ...], others: Values) -> Values:
        def body(i: tf.Tensor, _: Values) -> tuple[tf.Tensor, Values]:
            batch = batches[1]
            if len(batches) > 2:
                batch = tf.switch_case(i - 1, [lambda one=one: one for one in batches[1:]])
            return i + 1, self._one_step(worker, batch)[0]

        return tf.while_loop(lambda i, _: i < len(batches), body, (tf.constant(1), others))[1]

    def _one_step(self, worker: tf.Tensor, batch: Any) -> tuple[Values, list[tf.Tensor]]:
        updates = Updates()

        def replica_step(data: Any) -> Values:
            scope, recording = hooks.step_scope(WorkerStep(worker)), updates.recording(self._metrics.updated)
            with scope as step, recording, moving_averages(self._moving):
                return self._logs.split(self._step(data), step.results)

        others = self._strategy.run_on_worker(replica_step, batch)
        self._updates.append(updates)
        return others, updates.tensors

    def absorb(self, result: tuple[tf.Tensor, list[list[tf.Tensor]]]) -> Logs:
        """On the chief: logs of all data so far."""
        report, sent = result
        for updates, tensors in zip(self._updates, sent, strict=False):
            updates.replay(tensors)
        others, results = self._add(report)
        return self._logs.merge(others, results)

    def _add_report(self, report: tf.Tensor) -> tuple[Values, Values]:
        values = self._format.unpack(report)
        variables = self._metrics.summed_variables
        others, sums = values[: len(values) - len(variables)], values[len(values) - len(variables) :]
        for variable, value in zip(variables, sums, strict=True):
            variable.value.assign_add(value)
        return others, metric_results(self._logs.metrics)


class PredictFunction:
    """What `predict` calls with one execution's batches: their outputs' rows, in order.

    Batches behind those are begun ahead, as many as may be in flight.
    """

    def __init__(self, strategy: Any, model: Any) -> None:
        self._strategy, self._model, self._flights = strategy, model, strategy.flights
        self._functions: dict[str, Any] = {}
        self._begun: collections.deque[_Prediction] = collections.deque()

    def __call__(self, batches: list[Any]) -> Any:
        """Outputs of the batches, one behind the other."""
        feed = self._strategy.feed_of(batches)
        if not self._begun or self._begun[0].batch is not batches[0]:
            self._begun.clear()  # those of a `predict` that was interrupted
        outputs: list[Any] = []
        for index in range(len(batches)):
            behind = [] if feed is None else feed.look(self._flights.limit)
            self._begin([*batches[index:], *behind], None if feed is None else feed.spec)
            prediction = self._begun.popleft()
            while prediction.output is None:
                self._flights.take_first()
            outputs.append(prediction.output)
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *outputs)

    def _begin(self, batches: list[Any], spec: Any) -> None:
        for batch in batches[len(self._begun) :]:
            if self._flights.is_full:
                break
            self._begun.append(self._predict(batch, spec))

    def _predict(self, batch: Any, spec: Any) -> _Prediction:
        prediction = _Prediction(batch)
        tensors = _tensors(batch)
        function = self._function(spec or tf.nest.map_structure(_any_rows, tensors))
        self._flights.begin(function, lambda _: (tensors,), prediction.landed)
        return prediction

    def _function(self, spec: Any) -> Any:
        if str(spec) not in self._functions:

            @tf.autograph.experimental.do_not_convert
            def run(batch: Any) -> Any:
                return self._strategy.run_on_worker(self._model.predict_step, batch)

            with compat.tracing_for_workers(self._strategy):
                self._functions[str(spec)] = tf.function(run).get_concrete_function(spec)
        return self._functions[str(spec)]


class _Prediction:
    def __init__(self, batch: Any) -> None:
        self.batch, self.output = batch, None

    def landed(self, output: Any) -> None:
        self.output = output


def _moving_averages_of(model: Any) -> list[Any]:
    """What layers change by a part of it in each step, so that changes of several workers add up."""
    layers = [one for one in flatten_layers(model) if isinstance(one, keras.layers.BatchNormalization) and one.built]
    return [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]


def _tensors(batch: Any) -> Any:
    def tensor(leaf: Any) -> Any:
        is_one = leaf is None or isinstance(leaf, (tf.RaggedTensor, tf.SparseTensor))
        return leaf if is_one else tf.convert_to_tensor(leaf)

    return tf.nest.map_structure(tensor, batch)


def _any_rows(tensor: Any) -> Any:
    if tensor is None:
        return None
    if isinstance(tensor, (tf.RaggedTensor, tf.SparseTensor)):
        return tf.type_spec_from_value(tensor)
    return tf.TensorSpec([None, *tensor.shape[1:]] if tensor.shape.rank else [], tensor.dtype)
