"""Keras' train or test steps in one call to a worker, and what the chief does with its report.

on the worker: batches, sent along or read there -> for each, Keras' step on variables of the ps, with metrics in
variables of the worker's own -> one report: steps made, logs, what the metrics' variables have become
on the chief: report -> added to the metrics' variables -> logs
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat import tensorflow_parameter_server as compat
from tfdist._compat.keras_packed_variables import Fetch
from tfdist._compat.keras_trainer import flatten_layers
from tfdist._compat.keras_worker_variables import on_worker
from tfdist._compat.tensorflow_worker_tables import function_of_worker
from tfdist.coordination.metrics import Updates, metrics_of
from tfdist.coordination.reports import ReportFormat
from tfdist.coordination.worker_accumulation import WorkerAccumulation
from tfdist.coordination.worker_data import WorkerData
from tfdist.coordination.worker_reading import WorkerReading
from tfdist.coordination.worker_step import Pull, WorkerStep
from tfdist.gradients import AccumulationOptions, count_rows
from tfdist.strategies.empty_replicas import metrics_of_rows_only, pad_if_empty
from tfdist.strategies.logs import Logs, LogSources, Values, averaged, metric_results

_numbers = itertools.count()
#: The worker's index and the execution's number.
_WHO_SPEC = tf.TensorSpec([2], tf.int64)

Step = Callable[[Any], Any]


class Landed(NamedTuple):
    """What came of an execution: its steps, fewer where the data ended, the logs of all data so far, and its pushes.

    The last is what `Pushes.report` gives, where the step trains.
    """

    steps: int
    logs: Logs
    pushes: Any


class KerasStep(NamedTuple):
    """Keras' train or test step of a model.

    Attributes:
        strategy: ParameterServerStrategy.
        model: A compiled Keras model.
        call: Its train_step or test_step.
        training: Whether it's the former.
        options: Of gradient accumulation; trivial ones where nothing is trained.
        name: Of what functions for different data share on a worker, and on the ps.
    """

    strategy: Any
    model: Any
    call: Step
    training: bool
    options: AccumulationOptions
    name: str


class WorkerFunction:
    """A function for workers; made by `of_batches` or `of_leases`.

    Args:
        step: what is made of it.
        spec: of a batch.
    """

    #: The concrete function: of who makes it and batches, or of a lease's message.
    on_worker: Any

    def __init__(self, step: KerasStep, spec: Any) -> None:
        self._strategy, self._model, self._step, self._spec = step.strategy, step.model, step.call, spec
        strategy, model = step.strategy, step.model
        self._logs, self._format, self._updates = LogSources(), ReportFormat(), Updates()
        self._metrics = metrics_of(model)
        self._moving = _moving_averages_of(model)
        moving = {id(one) for one in self._moving}
        self._read = [one for one in model.trainable_variables if id(one) not in moving]
        self._name = f"tfdist/function/{next(_numbers)}"
        self._accumulation = _accumulation(step.options, f"{self._name}/gradients")
        self.pushes = strategy.policy.pushes_of(model, step.name) if step.training else None
        self._local = strategy.policy.local_training(self.pushes, self._read, step.name)

    @classmethod
    def of_batches(cls, step: KerasStep, spec: Any, count: int) -> WorkerFunction:
        """For batches that are sent along, `count` at a time."""
        made = cls(step, spec)

        def run(who: tf.Tensor, *batches: Any) -> Any:
            return made._report(tf.cast(who[0], tf.int32), who[1], lambda one: _sent_steps(one, list(batches)))

        made._trace(run, [_WHO_SPEC, *[spec] * count])
        return made

    @classmethod
    def of_leases(cls, step: KerasStep, data: WorkerData, count: int) -> WorkerFunction:
        """For data that the worker reads, up to `count` steps at a time."""
        made = cls(step, data.element_spec)

        def run(message: tf.Tensor) -> Any:
            reading = WorkerReading(data, message)
            return made._report(reading.worker, reading.number, lambda one: _leased_steps(one, reading, count))

        made._trace(run, [tf.TensorSpec([], tf.string)])
        return made

    def _trace(self, run: Callable[..., Any], specs: list[Any]) -> None:
        function = tf.function(tf.autograph.experimental.do_not_convert(run))
        with compat.tracing_for_workers(self._strategy):
            self.on_worker = function.get_concrete_function(*specs)
        add = tf.function(tf.autograph.experimental.do_not_convert(self._add_report))
        self._add = add.get_concrete_function(self.on_worker.structured_outputs[0])

    def _report(
        self, worker: tf.Tensor, number: tf.Tensor, steps_with: Callable[[OneStep], Steps]
    ) -> tuple[tf.Tensor, Any]:
        """On a worker: a vector, and arguments of metrics that the chief updates, a list a step."""
        replicas, sums = self._strategy.num_replicas_in_sync, self._metrics.summed_variables
        with function_of_worker(), on_worker(sums, self._name, replicas) as totals:
            if self.pushes is not None:
                self.pushes.begin(number)
            if self._local is not None:
                self._local.begin(number)
            one = tf.function(tf.autograph.experimental.do_not_convert(self._one_step))
            traced = one.get_concrete_function(worker, self._spec)
            apply = tf.autograph.experimental.do_not_convert(lambda: self._apply(worker))
            updates = _Updates(self._accumulation, tf.function(apply))
            updates.begin()
            sends = bool(self._metrics.updated)
            steps = steps_with(OneStep(lambda batch: traced(worker, batch), traced.structured_outputs, sends, updates))
            updates.end(steps.done)
            if self._local is not None:
                self._local.finish()
            counts = [] if self.pushes is None else [self.pushes.report()]
            values = [steps.done, *counts, *steps.others, *(one.total() for one in totals)]
            return self._format.pack(values), steps.sent if sends else []

    def _one_step(self, worker: tf.Tensor, batch: Any) -> tuple[Values, Values]:
        pull = self._read_variables()

        def replica_step(data: Any) -> Values:
            made = WorkerStep(data, worker, pull, self.pushes, self._accumulation, self._local)
            with hooks.step_scope(made) as step:
                if self._strategy.num_replicas_in_sync == 1:
                    return self._logs.split(self._step(data), step.results)
                with metrics_of_rows_only(self._model, step):
                    logs = self._step(pad_if_empty(data, count_rows(data)))
                return averaged(self._logs.split(logs, step.results), step)

        after = tf.control_dependencies([pull.version])
        own = contextlib.nullcontext() if self._local is None else self._local.used()
        with after, self._updates.recording(self._metrics.updated), pull.fetch.used(), own:
            others = self._strategy.run_on_worker(replica_step, batch)[0]
        return [tf.convert_to_tensor(value) for value in others], self._updates.tensors

    def _read_variables(self) -> Pull:
        if self.pushes is None:
            return Pull(Fetch(self._read, self._moving), tf.constant(0, tf.int64))
        if self._local is not None:
            return Pull(Fetch([], self._moving), tf.constant(0, tf.int64))
        version = self.pushes.read_version()
        with tf.control_dependencies([version]):
            return Pull(Fetch(self._read, self._moving, whole=self.pushes.policy.needs_values), version)

    def _apply(self, worker: tf.Tensor) -> tf.Tensor:
        """An optimizer step with the gradients that were added up."""
        scope = compat.in_one_replica(self._strategy)
        with scope, hooks.step_scope(WorkerStep(None, worker)):
            if self._accumulation is not None and self.pushes is not None:
                self._accumulation.apply(self.pushes)
        return tf.constant(0)

    def absorb(self, result: tuple[tf.Tensor, list[list[tf.Tensor]]]) -> Landed:
        """On the chief: add a report to the metrics."""
        report, sent = result
        steps, counts, others, results = self._add(report)
        steps = int(steps)
        for tensors in sent[:steps]:
            self._updates.replay(tensors)
        if sent:
            results = metric_results(self._logs.metrics)
        return Landed(steps, self._logs.merge(others, results), counts[0].numpy() if counts else None)

    def _add_report(self, report: tf.Tensor) -> tuple[tf.Tensor, Values, Values, Values]:
        steps, *values = self._format.unpack(report)
        counts = [] if self.pushes is None else [values.pop(0)]
        variables = self._metrics.summed_variables
        others, sums = values[: len(values) - len(variables)], values[len(values) - len(variables) :]
        for variable, value in zip(variables, sums, strict=True):
            variable.value.assign_add(value)
        return steps, counts, others, [] if self._metrics.updated else metric_results(self._logs.metrics)


class _Updates(NamedTuple):
    """When the gradients that were added up are applied; never, if each step applies its own."""

    accumulation: WorkerAccumulation | None
    apply: Callable[[], tf.Tensor]

    def begin(self) -> None:
        """Before the first step."""
        if self.accumulation is not None:
            self.accumulation.clear()

    def after(self, done: tf.Tensor) -> None:
        """After a step, the `done`-th."""
        if self.accumulation is not None:
            self._apply_if(tf.equal(done % self.accumulation.steps, 0))

    def end(self, done: tf.Tensor) -> None:
        """After the last step."""
        if self.accumulation is not None and not self.accumulation.drops:
            self._apply_if(tf.not_equal(done % self.accumulation.steps, 0))

    def _apply_if(self, is_time: tf.Tensor) -> None:
        tf.cond(is_time, self.apply, lambda: tf.constant(0))


class OneStep(NamedTuple):
    """Keras' step on a batch: what it returns, what that looks like, and whether the second part is sent step by step.

    What it returns: logs that are no metrics' results, and arguments of metrics that the chief updates.
    """

    call: Callable[[Any], tuple[Values, Values]]
    outputs: tuple[Values, Values]
    sends: bool
    updates: _Updates

    @property
    def nothing(self) -> tuple[Values, Values]:
        """Stands for what a step that isn't made returns."""
        return tf.nest.map_structure(_zeros, self.outputs)


class Steps(NamedTuple):
    """Of an execution: how many were made, the last one's logs, and each one's arguments of metrics."""

    done: tf.Tensor
    others: Values
    sent: list[Values]


def _sent_steps(one: OneStep, batches: list[Any]) -> Steps:
    if len(batches) == 1 or one.sends:
        outputs = []
        for number, batch in enumerate(batches):
            outputs.append(one.call(batch))
            one.updates.after(tf.constant(number + 1))
        return Steps(tf.constant(len(batches)), outputs[-1][0], [tensors for _, tensors in outputs])

    def body(i: tf.Tensor, _: Values) -> tuple[tf.Tensor, Values]:
        batch = tf.switch_case(i, [lambda batch=batch: batch for batch in batches])
        others = one.call(batch)[0]
        one.updates.after(i + 1)
        return i + 1, others

    done, others = tf.while_loop(lambda i, _: i < len(batches), body, (tf.constant(0), one.nothing[0]))
    return Steps(done, others, [])


def _leased_steps(one: OneStep, reading: WorkerReading, most: int) -> Steps:
    def next_step(done: tf.Tensor, others: Values) -> tuple[tf.Tensor, Values, Values]:
        batch = reading.next()

        def make() -> tuple[tf.Tensor, Values, Values]:
            outputs = one.call(batch.get_value())
            one.updates.after(done + 1)
            return done + 1, *outputs

        return tf.cond(batch.has_value(), make, lambda: (done, others, one.nothing[1]))

    def body(i: tf.Tensor, done: tf.Tensor, others: Values) -> tuple[tf.Tensor, tf.Tensor, Values]:
        return i + 1, *next_step(done, others)[:2]

    def is_wanted(i: Any, done: tf.Tensor, *_: Values) -> tf.Tensor:
        return tf.logical_and(tf.cast(i, tf.int64) < reading.count, tf.equal(i, done))

    done, others, sent = tf.constant(0), one.nothing[0], []
    if most == 1 or one.sends:
        for i in range(most):
            state = done, others
            done, others, tensors = tf.cond(
                is_wanted(i, done), lambda state=state: next_step(*state), lambda state=state: (*state, one.nothing[1])
            )
            sent.append(tensors)
    else:
        _, done, others = tf.while_loop(is_wanted, body, (tf.constant(0), done, others))
    reading.end(done)
    return Steps(done, others, sent)


def _zeros(tensor: tf.Tensor) -> tf.Tensor:
    zeros = tf.zeros([size or 0 for size in tensor.shape], tensor.dtype)
    return tf.ensure_shape(tf.raw_ops.PlaceholderWithDefault(input=zeros, shape=tensor.shape), tensor.shape)


def _accumulation(options: AccumulationOptions, name: str) -> WorkerAccumulation | None:
    if options.is_trivial:
        return None
    return WorkerAccumulation(options.fixed_steps, name, options.dtype, drops=options.leftover == "drop")


def _moving_averages_of(model: Any) -> list[Any]:
    """What layers change by a part of it in each step, so that changes of several workers add up."""
    layers = [one for one in flatten_layers(model) if isinstance(one, keras.layers.BatchNormalization) and one.built]
    # With renorm=True there are more of them than its mean and variance.
    return [variable for layer in layers for variable in layer.non_trainable_variables]
