"""The functions that Keras' `fit`, `evaluate` and `predict` call under ParameterServerStrategy.

A call hands one execution to the coordinator and returns what has landed meanwhile, so callbacks see the logs of
executions that have ended; before an epoch ends all of them have landed.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat import tensorflow_parameter_server as compat
from tfdist._compat.keras_metrics import record_results
from tfdist._compat.keras_optimizers import build_if_needed
from tfdist._compat.tensorflow import python_function
from tfdist._compat.tensorflow_coordinator import on_chief
from tfdist.coordination.feeding import Feed
from tfdist.coordination.flights import Flights
from tfdist.coordination.worker_data import LeasedWork, WorkerPass
from tfdist.data.rows import as_tensor, join_parts
from tfdist.gradients import AccumulationOptions
from tfdist.strategies.keras_steps import keras_replica_step, predict_step
from tfdist.strategies.logs import Logs
from tfdist.strategies.policy_in_use import PolicyInUse
from tfdist.strategies.worker_function import KerasStep, WorkerFunction

_fits, _numbers = itertools.count(1), itertools.count()
# Times the steps of an average worker, where executions follow their speed.
_FASTEST = 2


class CoordinatedFunction:
    """Train or test function of one model; call it with a pass over data.

    Args:
        strategy: ParameterServerStrategy.
        model: a compiled Keras model.
        step: `model.train_step` or `model.test_step`.
        training: whether it's the former.
    """

    def __init__(self, strategy: Any, model: Any, step: Callable[[Any], Any], *, training: bool) -> None:
        self._strategy, self._model, self._training = strategy, model, training
        self._flights: Flights = strategy.flights
        self._policy: PolicyInUse = strategy.policy
        self._steps = int(model.steps_per_execution)
        self._options = strategy.options_of(model.optimizer) if training else AccumulationOptions()
        name = f"tfdist/training/{next(_numbers)}"
        self._step = KerasStep(strategy, model, python_function(step), training, self._options, name)
        #: Steps of an execution: all micro-batches of an optimizer step are in one, so it may take more than Keras
        #: counts, which are its next steps.
        self._together = max(self._options.fixed_steps, self._policy.steps_together) if training else 1
        self._taken = -(-self._steps // self._together) * self._together
        #: Of an execution.
        self._pushes = self._taken // self._together if training else 0
        #: Number of the `fit`.
        self._fit = 0
        #: Steps that have begun and that Keras hasn't counted yet, and those that may begin in this epoch.
        self._ahead = 0
        self._left: int | None = None
        self._functions: dict[Any, WorkerFunction] = {}
        self._latest: Logs | None = None
        self._data: Any = None
        self._round = 0
        #: Steps that landed and that Keras hasn't been told of.
        self._untold = 0
        #: Whether the logs are an epoch's; a batch's are its losses and metrics.
        self._is_in_epoch = False
        record_results(model.metrics)
        if training and model.optimizer is not None and model.trainable_variables:
            with strategy.scope():  # what it assigns as it is built must not become part of a step
                build_if_needed(model.optimizer, model.trainable_variables)

    @property
    def is_current(self) -> bool:
        """Whether the optimizer accumulates as when the function was made, and executions have as many steps."""
        options, together = self._strategy.options_of(self._model.optimizer), self._policy.steps_together
        return not self._training or (self._options == options and max(options.fixed_steps, together) == self._together)

    def __call__(self, data: Any) -> Logs:
        """Begin one execution; raises StopIteration when the data is at its end and all have landed."""
        if not isinstance(data, (Feed, WorkerPass)):
            return self._on_batch(next(data))
        if self._training and hooks.is_first_of_fit(self._model, "step"):
            self._strategy.check_before_steps(self._model)
            self._fit = next(_fits)
        if data is not self._data or self._round != self._flights.rounds:
            self._begin_epoch(data)
        if isinstance(data, WorkerPass) and not data.is_measured:
            return self._next_found(data)
        if self._ahead < self._steps:
            try:
                self._ahead += self._begin(data)
            except StopIteration:
                if not self._ahead:
                    self._flights.end_round()
                    raise
        self._ahead = max(0, self._ahead - self._steps)
        while self._latest is None or self._flights.is_full(self._pushes):
            self._flights.take_one()
        return self._latest

    def _begin_epoch(self, data: Feed | WorkerPass) -> None:
        self._data, self._round = data, self._flights.rounds
        self._latest, self._untold, self._ahead = None, 0, 0
        self._is_in_epoch = True
        steps = data.steps_per_epoch
        # Keras makes whole executions.
        self._left = None if steps is None else -(-steps // self._steps) * self._steps
        if self._training:
            self._policy.begin_epoch(data)
            if isinstance(data, WorkerPass) and data.is_paced:
                self._left = None  # the data's own end comes first

    def _next_found(self, data: WorkerPass) -> Logs:
        """Of data of which nobody knows what executions have: Keras is told of steps when so many have landed."""
        while self._untold < self._steps:
            while not (self._flights.is_full(self._pushes) or data.has_ended or self._left == 0):
                self._begin(data)
            if len(self._flights):
                self._flights.take_one()
            elif self._untold:
                break
            else:
                self._flights.end_round()
                raise StopIteration
        self._untold = max(0, self._untold - self._steps)
        return self._latest or {}

    def _on_batch(self, batch: Any) -> Logs:
        """`train_on_batch`, `test_on_batch`."""
        if self._training:
            self._policy.refuse_one_batch()
        if self._options.fixed_steps > 1:
            raise ValueError(
                "train_on_batch trains on one batch, which is less than an optimizer step. Expected: no gradient "
                f"accumulation. Received: gradient_accumulation_steps={self._options.steps}. Use fit."
            )
        batch = tf.nest.map_structure(as_tensor, batch)
        self._latest, self._is_in_epoch = None, False
        self._begin_batches([batch], tf.nest.map_structure(_any_rows, batch))
        self._flights.take_all()
        if self._training:
            self._flights.on_round_end()
        return self._latest or {}

    def _begin(self, data: Feed | WorkerPass) -> int:
        """Begin an execution; how many steps it has, as far as that is known."""
        count = self._taken if self._left is None else min(self._taken, self._left)
        if isinstance(data, Feed):
            batches = data.take(count)
            self._begin_batches(batches, data.spec)
            begun = len(batches)
        else:
            most = self._taken * _FASTEST if data.is_paced else self._taken
            always = self._left is None or self._left % self._taken == 0
            work = data.begin(most if data.is_paced else count, always=always)
            self._begin_lease(data.data, work, most)
            begun = work.steps
        if self._left is not None:
            self._left -= count
        return begun

    def _begin_batches(self, batches: list[Any], spec: Any) -> None:
        key = (len(batches), str(spec))
        if key not in self._functions:
            self._functions[key] = WorkerFunction.of_batches(self._step, spec, len(batches))
        function = self._functions[key]
        number = self._policy.number_of(function.pushes, self._fit)
        self._flights.begin(
            function.on_worker,
            lambda worker: (on_chief(np.array([worker, number], np.int64)), *batches),
            lambda result: self._landed(function, result, number),
            self._pushes,
        )

    def _begin_lease(self, data: Any, work: LeasedWork, most: int) -> None:
        key = data.name, most
        if key not in self._functions:
            self._functions[key] = WorkerFunction.of_leases(self._step, data, most)
        function = self._functions[key]
        work.number = self._policy.number_of(function.pushes, self._fit)

        def arguments(worker: int) -> tuple[Any] | None:
            message = work.message(worker)
            return None if message is None else (on_chief(message),)

        def landed(result: Any) -> None:
            work.landed(self._landed(function, result, work.number))

        self._flights.begin(function.on_worker, arguments, landed, self._pushes)

    def _landed(self, function: WorkerFunction, result: Any, number: int) -> int:
        steps, logs, report = function.absorb(result)
        if self._training:
            self._strategy.reported_steps += steps
        if function.pushes is not None:
            self._policy.landed(function.pushes, number, steps, report)
            if self._is_in_epoch:
                logs = self._policy.with_staleness(logs)
        if steps:
            self._untold += steps
            if self._latest is None:
                self._latest = logs
            else:
                # The same object: Keras reads an epoch's logs from what the last call returned.
                self._latest.update(logs)
        return steps


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
                self._flights.take_one()
            outputs.append(prediction.output)
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *outputs)

    def _begin(self, batches: list[Any], spec: Any) -> None:
        for batch in batches[len(self._begun) :]:
            if self._flights.is_full():
                break
            self._begun.append(self._predict(batch, spec))

    def _predict(self, batch: Any, spec: Any) -> _Prediction:
        prediction = _Prediction(batch)
        tensors = tf.nest.map_structure(as_tensor, batch)
        function = self._function(spec or tf.nest.map_structure(_any_rows, tensors))
        self._flights.begin(function, lambda _: (tensors,), prediction.landed)
        return prediction

    def _function(self, spec: Any) -> Any:
        if str(spec) not in self._functions:
            step = predict_step(self._model)
            if self._strategy.num_replicas_in_sync > 1:
                step = keras_replica_step(step)

            @tf.autograph.experimental.do_not_convert
            def run(batch: Any) -> Any:
                outputs = self._strategy.run_on_worker(step, batch)
                if len(outputs) == 1:
                    return outputs[0]
                return tf.nest.map_structure(lambda *parts: join_parts(parts), *outputs)

            with compat.tracing_for_workers(self._strategy):
                self._functions[str(spec)] = tf.function(run).get_concrete_function(spec)
        return self._functions[str(spec)]


class _Prediction:
    def __init__(self, batch: Any) -> None:
        self.batch, self.output = batch, None

    def landed(self, output: Any) -> None:
        self.output = output


def _any_rows(tensor: Any) -> Any:
    if tensor is None:
        return None
    if isinstance(tensor, (tf.RaggedTensor, tf.SparseTensor)):
        return tf.type_spec_from_value(tensor)
    return tf.TensorSpec([None, *tensor.shape[1:]] if tensor.shape.rank else [], tensor.dtype)
