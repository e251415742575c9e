"""The functions that Keras' `fit`, `evaluate` and `predict` call, for synchronous strategies.

The way of one execution (`steps_per_execution` global batches):

    iterator -> step (cross-replica) -> replica_step in each replica: Keras' train_step, then what the layers assigned
    is averaged -> after the last step the metric variables are summed over the replicas in one all-reduce and the
    results computed from the sums, so logs are of the global data at every step and equal on all workers; with several
    workers only where somebody on any of them looks at the logs of batches. Keras takes an epoch's from the metrics.

What a train_step returns beside results of its metrics is averaged over the replicas, weighted by their rows; with
steps_per_execution > 1 the last step's value is returned, as Keras does.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.keras_metrics import record_results
from tfdist._compat.keras_trainer import flatten_layers
from tfdist._compat.tensorflow import op_determinism, python_function
from tfdist.data.reading.reader_calls import take_error
from tfdist.data.rows import without_optional
from tfdist.gradients import ReplicaStep, average_over_replicas, count_rows
from tfdist.strategies.checks import refuse_small
from tfdist.strategies.empty_replicas import metrics_of_rows_only, pad_if_empty, without_padding
from tfdist.strategies.gathering import gather_rows
from tfdist.strategies.logs import Logs, LogSources, Values, averaged, global_metric_results
from tfdist.strategies.micro_batches import MicroBatch


class StepFunction:
    """Train or test function of one model under one strategy; call it with an iterator of global batches.

    Args:
        strategy: a synchronous tfdist strategy.
        model: a compiled Keras model.
        step: `model.train_step` or `model.test_step`.
        training: whether layers' assigned variables must be averaged.
    """

    def __init__(self, strategy: Any, model: Any, step: Callable[[Any], Any], *, training: bool):
        self._strategy, self._model, self._training = strategy, model, training
        self._accumulates = training and strategy.accumulates(model.optimizer)
        self._traced_for = self._trace_options()
        if self._accumulates:
            strategy.begin_traces(model.optimizer)
        self._step = python_function(step)
        self._logs = LogSources()
        self._steps = int(model.steps_per_execution)
        self._unrolled = min(int(model.unrolled_steps_per_execution), self._steps)
        self._one_step = self._compile(self._cross_replica_step, jit_compile=bool(model.jit_compile))
        self._execution = self._compile(self._execute)
        self._results = self._compile(self._metric_results)
        self._waited: Any = 0.0
        self._skips_results = False
        record_results(model.metrics)

    @property
    def is_current(self) -> bool:
        """Whether the options it was compiled for are still those of the strategy and the optimizer."""
        return self._traced_for == self._trace_options()

    @property
    def waited_seconds(self) -> float | None:
        """How long the last execution waited for its batches; None where op determinism forbids to measure it."""
        seconds = float(self._waited)
        return None if math.isnan(seconds) else seconds

    def _trace_options(self) -> Any:
        return self._strategy.options_of(self._model.optimizer).traced if self._training else None

    def __call__(self, iterator: Any) -> Logs:
        """Run one execution; raises StopIteration or OutOfRangeError when the data is at its end."""
        if not isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
            return self._on_batch(next(iterator))
        is_first = self._training and hooks.is_first_of_fit(self._model, "step")
        if is_first:
            self._skips_results = False
            self._strategy.check_before_steps(self._model)
        with self._strategy.peers.execution(), explained():
            wants_results = not self._skips_results or not hooks.is_fitting(self._model)
            logs, rows, self._waited = self._execution(iterator, wants_results)
        if is_first:
            refuse_small("batch size", int(rows), self._strategy)
            self._skips_results = self._may_skip_results(logs)
        return logs

    def _may_skip_results(self, logs: Logs) -> bool:
        """Whether nobody on any worker looks at logs of batches; Keras takes an epoch's from the metrics themselves."""
        if self._strategy.num_workers == 1:
            return False
        are_metrics = self._logs.are_results and isinstance(logs, dict) and set(logs) == self._metric_names
        needs = hooks.has_log_readers(self._model) or self._model.run_eagerly or not are_metrics
        return b"1" not in self._strategy.gather_bytes(b"1" if needs else b"0")

    @functools.cached_property
    def _metric_names(self) -> set[str]:
        """As Keras has them in an epoch's logs; traced, since reading metrics would be a collective."""
        traced = tf.function(tf.autograph.experimental.do_not_convert(self._model.get_metrics_result))
        return set(traced.get_concrete_function().structured_outputs)

    def _on_batch(self, batch: Any) -> Logs:
        """`train_on_batch`, `test_on_batch`: the batch is the global batch, the same on every worker."""
        with self._strategy.peers.execution():
            others, _ = self._one_step(self._strategy.split_batch(batch))
            return self._logs.merge(others, self._results())

    def _execute(self, iterator: Any, wants_results: bool) -> tuple[Logs, tf.Tensor, tf.Tensor]:
        """Logs, the rows of the first global batch, and the seconds that were waited for input.

        Args:
            iterator: of global batches.
            wants_results: whether anybody looks at the logs; without, the results of metrics are NaN.
        """

        def ask_first() -> tuple[Any, Any]:
            batch = iterator.get_next()
            return batch, batch

        batch, _, waited = timed(ask_first)
        # Or what depends on no batch, such as the optimizer's count of steps, would also run where there is none.
        with tf.control_dependencies([waited]):
            others, rows = self._one_step(batch)
        if self._steps > 1:
            others, waited = self._remaining_steps(iterator, others, waited)
        results = self._results() if wants_results else [tf.constant(math.nan)] * len(self._logs.metrics)
        return self._logs.merge(others, results), rows, waited

    def _remaining_steps(self, iterator: Any, others: Values, waited: tf.Tensor) -> tuple[Values, tf.Tensor]:
        def ask() -> tuple[Any, tf.Tensor]:
            batch = iterator.get_next_as_optional()
            return batch, batch.has_value()

        def next_step(done: tf.Tensor, others: Values, waited: tf.Tensor) -> tuple[tf.Tensor, Values, tf.Tensor]:
            batch, has_value, seconds = timed(ask)
            others = tf.cond(has_value, lambda: self._one_step(batch.get_value())[0], lambda: others)
            return tf.where(has_value, done + 1, self._steps), others, waited + seconds

        def body(*state: Any) -> Any:
            state = next_step(*state)
            for _ in range(self._unrolled - 1):
                state = tf.cond(
                    state[0] < self._steps, lambda state=state: next_step(*state), lambda state=state: tuple(state)
                )
            return state

        return tf.while_loop(lambda done, *_: done < self._steps, body, (tf.constant(1), others, waited))[1:]

    def _cross_replica_step(self, data: Any) -> tuple[Values, tf.Tensor]:
        splits = self._strategy.options_of(self._model.optimizer).splits if self._accumulates else 1
        if splits == 1:
            return self._run(data)
        return self._strategy.each_micro_batch(lambda piece: self._run(data, piece), splits)

    def _run(self, data: Any, piece: MicroBatch | None = None) -> tuple[Values, tf.Tensor]:
        outputs = self._strategy.run_keras_step(self._replica_step, data, weighs=self._accumulates, piece=piece)
        return tf.nest.map_structure(lambda value: self._strategy.experimental_local_results(value)[0], outputs)

    def _replica_step(self, data: Any) -> tuple[Values, tf.Tensor]:
        step = hooks.current_step()
        if step is None:
            return self._logs.split(self._step(data), []), tf.constant(1)
        if self._training:
            note_before(self._model, step)
        with metrics_of_rows_only(self._model, step):
            logs = self._step(data)
        self._end_replica_step(step)
        others = self._logs.split(logs, step.results)
        return averaged(others, step), tf.cast(step.total_rows(), tf.int32)

    def _end_replica_step(self, step: hooks.Step) -> None:
        """In each replica, after Keras' step."""
        if self._training:
            average_assigned(self._model, step)

    def _metric_results(self) -> Values:
        return global_metric_results(self._strategy, self._model, self._logs.metrics)

    def _compile(self, function: Callable[..., Any], *, jit_compile: bool = False) -> Callable[..., Any]:
        function = tf.autograph.experimental.do_not_convert(function)
        if self._model.run_eagerly:
            return function
        return tf.function(function, reduce_retracing=True, jit_compile=jit_compile or None)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """In place of TensorFlow's error, the one of reading that it was made of, which says file and record.

    Raises:
        TfdistError: What reading ended with.
    """
    try:
        yield
    except tf.errors.OutOfRangeError:
        raise
    except tf.errors.OpError as error:
        cause = take_error()
        if cause is not None and str(cause) in str(error):
            raise cause from None
        raise


def timed(ask: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any, tf.Tensor]:
    """What `ask` returns, a batch and tensors that are there when it is, and the seconds that this took.

    With op determinism, which forbids looking at the clock, the seconds are NaN.
    """
    clock = (lambda: tf.constant(math.nan, tf.float64)) if op_determinism() else tf.timestamp
    begun = clock()
    with tf.control_dependencies([begun]):
        batch, tensors = ask()
    arrived = [one for one in tf.nest.flatten(tensors, expand_composites=True) if one is not None]
    with tf.control_dependencies(arrived):
        return batch, tensors, clock() - begun


def predict_step(model: Any) -> Callable[[Any], Any]:
    """Keras' predict step of a replica, without the row that stands for none."""

    def predict(data: Any) -> Any:
        outputs, step = model.predict_step(data), hooks.current_step()
        if step is None:
            return outputs
        return tf.nest.map_structure(lambda value: without_padding(value, step), outputs)

    return predict


def predict_function(strategy: Any, model: Any) -> Callable[[list[Any]], Any]:
    """What `predict` calls: a list of batches in, their outputs' rows out, in order, on every worker."""

    step = predict_step(model)

    def replica_step(data: Any) -> Any:
        return gather_rows(strategy, step(data))

    @tf.autograph.experimental.do_not_convert
    def predict(batches: list[Any]) -> Any:
        outputs = []
        for batch in batches:
            rows = strategy.run_keras_step(replica_step, batch, weighs=False)
            outputs.append(tf.nest.map_structure(strategy.join_rows, rows))
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *outputs)

    compiled = predict if model.run_eagerly else tf.function(predict, reduce_retracing=True)

    def watched(batches: list[Any]) -> Any:
        with strategy.peers.execution():
            return compiled(batches)

    return watched


def with_nones(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`step` with missing inputs as None."""
    return lambda data: step(tf.nest.map_structure(without_optional, data))


def keras_replica_step(
    step: Callable[[Any], Any], kind: type[ReplicaStep] = ReplicaStep, piece: MicroBatch | None = None
) -> Callable[[Any], Any]:
    """`step` in a `ReplicaStep` of its own, with missing inputs as None and never without a row."""

    def run(data: Any) -> Any:
        data = tf.nest.map_structure(without_optional, data)
        data = data if piece is None else piece.rows_of(data)
        rows = count_rows(data)
        with hooks.step_scope(kind(rows, in_keras=True, ends_batch=piece and piece.is_last)):
            return step(data if rows is None else pad_if_empty(data, rows))

    return run


def note_before(model: Any, step: hooks.Step) -> None:
    """Remember what layers may assign, for micro-batches: one of them may have no rows on any replica."""
    if step.ends_batch is not None:
        floating = [v for v in model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating]
        step.before = {id(v): tf.identity(v.value) for v in floating}


def average_assigned(model: Any, step: hooks.Step) -> None:
    """Average what layers assigned in this step over the replicas.

    Means are weighted by rows; a replica without rows, whose statistics are NaN, weighs nothing.
    """
    variables = assigned_state(model, step)
    if variables:
        values = [tf.identity(v.value) for v in variables]
        for variable, value in zip(variables, average_over_replicas(values, share=step.row_share()), strict=True):
            before = step.before.get(id(variable))
            variable.assign(value if before is None else tf.where(step.total_rows() > 0, value, before))


def assigned_state(model: Any, step: hooks.Step) -> list[Any]:
    """What layers assigned in this step and replicas may have apart: BatchNormalization's moving statistics, say."""
    own = {id(v) for v in model.non_trainable_variables} - _synchronized_ids(model)
    own -= {id(v) for v in model.metrics_variables}
    variables = list({id(v): v for v in step.assigned if id(v) in own}.values())
    return [v for v in variables if tf.as_dtype(v.dtype).is_floating]


def _synchronized_ids(model: Any) -> set[int]:
    """Variables that are equal on all replicas because the layer itself synchronizes."""
    normalizations = [one for one in flatten_layers(model) if isinstance(one, keras.layers.BatchNormalization)]
    layers = [layer for layer in normalizations if layer.synchronized]
    return {id(v) for layer in layers for v in layer.variables}
