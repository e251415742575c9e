"""The train, test and predict functions of LocalSGDStrategy.

    train     warm-up steps are those of the other synchronous strategies; local steps ask nothing of other replicas,
              and averagings follow those that are due
    test      everyone's weights are averaged first, and so are they for predictions

Logs are of the global data and equal on all workers, as they were when replicas last knew of each other: after a step
with an averaging, a warm-up step, and the first step of an epoch. In between they are repeated, since summing metrics
would make every worker wait for the slowest in every step. What `fit` keeps for an epoch is summed at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.keras_averaging import averaging_of
from tfdist.gradients.averaging import LocalAveraging, LocalStep, stopping_at_difference
from tfdist.strategies.keras_steps import StepFunction, assigned_state, keras_replica_step, predict_function
from tfdist.strategies.logs import Logs, Values

#: No number of exchanges: what was kept is not to be used again.
_NONE = -1


class LocalTrainFunction(StepFunction):
    """Train function whose replicas train by themselves; call it with an iterator of global batches."""

    def __init__(self, strategy: Any, model: Any, step: Callable[[Any], Any]) -> None:
        super().__init__(strategy, model, step, training=True)
        #: Of the optimizers that the step uses, in their order; known once it is traced.
        self._averagings: list[LocalAveraging] = []
        #: What layers assign, by id.
        self._layer_state: dict[int, Any] = {}
        #: Results of metrics as they were last summed, and the number of exchanges at that time.
        self._kept: list[tf.Variable] | None = None
        self._kept_at: tf.Variable | None = None

    def __call__(self, iterator: Any) -> Logs:
        """Run one execution; raises StopIteration or OutOfRangeError when the data is at its end."""
        self._strategy.restore_pending()
        with stopping_at_difference(self._averagings):
            logs = super().__call__(iterator)
            for averaging in self._averagings:
                if averaging.options.overlap_steps:
                    averaging.overlap.end_execution()
        return logs

    def begin_epoch(self) -> None:
        """Metrics were reset, so what was kept of them is out of date."""
        if self._kept_at is not None:
            self._kept_at.assign(_NONE)

    def _cross_replica_step(self, data: Any) -> tuple[Values, tf.Tensor]:
        averaging = averaging_of(self._model.optimizer)
        warmup = 0 if averaging is None else averaging.options.warmup_steps
        if not warmup:
            return self._local_step(data)
        is_warm = tf.convert_to_tensor(self._model.optimizer.iterations) >= warmup
        return tf.cond(is_warm, lambda: self._local_step(data), lambda: self._synchronous_step(data))

    def _local_step(self, data: Any) -> tuple[Values, tf.Tensor]:
        step = keras_replica_step(self._replica_step, LocalStep)
        with self._strategy.collecting_averagings() as found:
            outputs = self._strategy.run_replicas(step, data)
        self._averagings[:] = dict.fromkeys(found)
        for averaging in self._averagings[:1]:
            averaging.include(list(self._layer_state.values()))
        for averaging in self._averagings:
            averaging.end_step()
        return self._first(outputs)

    def _synchronous_step(self, data: Any) -> tuple[Values, tf.Tensor]:
        step = keras_replica_step(self._replica_step)
        with self._strategy.collecting_averagings() as found:
            outputs = self._strategy.run_replicas(step, data)
        for averaging in dict.fromkeys(found):
            averaging.count_exchange()
        return self._first(outputs)

    def _first(self, outputs: Any) -> Any:
        return tf.nest.map_structure(lambda value: self._strategy.experimental_local_results(value)[0], outputs)

    def _end_replica_step(self, step: hooks.Step) -> None:
        if isinstance(step, LocalStep):
            variables = assigned_state(self._model, step)
            step.keep_without_rows(variables)
            self._layer_state.update({id(variable): variable for variable in variables})
        else:
            super()._end_replica_step(step)

    def _metric_results(self) -> Values:
        if not self._averagings or self._model.run_eagerly:
            return super()._metric_results()
        now = self._averagings[0].make().exchanges.read_value()
        kept, kept_at = self._keep()

        def summed() -> Values:
            results = super(LocalTrainFunction, self)._metric_results()
            for variable, result in zip(kept, results, strict=True):
                variable.assign(result)
            kept_at.assign(now)
            return results

        return tf.cond(tf.equal(now, kept_at.read_value()), lambda: [v.read_value() for v in kept], summed)

    def _keep(self) -> tuple[list[tf.Variable], tf.Variable]:
        """The variables for results of metrics, made from a trace of how they are computed."""
        if self._kept is None or self._kept_at is None:
            with tf.init_scope():
                traced = tf.function(tf.autograph.experimental.do_not_convert(super()._metric_results))
                specs = traced.get_concrete_function().structured_outputs
                self._kept = [tf.Variable(tf.zeros(spec.shape, spec.dtype), trainable=False) for spec in specs]
                self._kept_at = tf.Variable(_NONE, dtype=tf.int64, trainable=False)
        return self._kept, self._kept_at


class AveragedTestFunction(StepFunction):
    """Test function that sees averaged weights."""

    def __call__(self, iterator: Any) -> Logs:
        """Run one execution."""
        self._strategy.average()
        return super().__call__(iterator)


def averaged_predict_function(strategy: Any, model: Any) -> Callable[[list[Any]], Any]:
    """What `predict` calls, with averaged weights."""
    predict = predict_function(strategy, model)

    def averaged(batches: list[Any]) -> Any:
        strategy.average()
        return predict(batches)

    return averaged
