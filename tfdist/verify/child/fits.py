"""A recorder in every `fit` and `train_on_batch` of the script.

`keras.Model.fit` and `train_on_batch` are replaced by methods that add a callback, or record by themselves, and call
what the class inherits. The model's `train_step` is wrapped, on the instance, by one that notes the rows that it is
given.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.tensorflow import python_function
from tfdist.callbacks import Checkpoint
from tfdist.verify.child import call_sites
from tfdist.verify.child.batches import Batches
from tfdist.verify.child.facts import describe, facts_of
from tfdist.verify.child.probe import Probe
from tfdist.verify.child.random_layers import make_inert
from tfdist.verify.child.recorder import Recorder
from tfdist.verify.child.rows import note_rows
from tfdist.verify.spec import LEARNING_RATE, ChildSpec

#: Callbacks that write files which the user's own training needs, or go on from them.
LEFT_OUT = (
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.BackupAndRestore,
    keras.callbacks.TensorBoard,
    keras.callbacks.CSVLogger,
    Checkpoint,
)


class Done(SystemExit):
    """All steps are recorded; the script ends, as if it had called sys.exit(0)."""

    def __init__(self) -> None:
        super().__init__(0)


class Fits:
    """Records what models of the script do while they train.

    Args:
        spec: the run.
        recorder: where it is written.
        batches: what becomes of the batches.
    """

    def __init__(self, spec: ChildSpec, recorder: Recorder, batches: Batches) -> None:
        self._spec, self._recorder, self._batches = spec, recorder, batches
        self._prepared: dict[int, Any] = {}
        self._ahead: dict[int, Any] = {}

    def watch(self) -> None:
        """Replace the methods of `keras.Model`."""
        keras.Model.fit = self._fit()
        keras.Model.train_on_batch = self._train_on_batch()
        self._batches.watch()

    def _fit(self) -> Callable[..., Any]:
        fits = self

        @functools.wraps(keras.Model.fit)
        def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
            inherited = _inherited(self, "fit")
            call = inspect.signature(inherited).bind(*args, **kwargs)
            fits.prepare(self)
            fits.arrange(self, call.arguments)
            _shorten_validation(call.arguments, fits.most_steps)
            recorder = RecordSteps(fits, self, accumulates=fits.accumulates(self))
            call.arguments["callbacks"] = _with(call.arguments.get("callbacks"), recorder, self)
            return inherited(*call.args, **call.kwargs)

        return fit

    def _train_on_batch(self) -> Callable[..., Any]:
        fits = self

        @functools.wraps(keras.Model.train_on_batch)
        def train_on_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
            if fits.prepare(self):
                fits.refuse_accumulation(self)
                fits.begin(self)
            result = _inherited(self, "train_on_batch")(*args, **kwargs)
            fits.step(self, 1, _logs(result))
            if fits.is_done:
                raise Done
            return result

        return train_on_batch

    def arrange(self, model: Any, arguments: dict[str, Any]) -> None:
        """Cut or join the batches of a `fit`."""
        asked = self._batches.steps(model)
        self._recorder.facts["accumulate"] = max(asked, self._recorder.facts.get("accumulate", 1))
        self._batches.arrange(model, arguments)

    def accumulates(self, model: Any) -> bool:
        """Whether the optimizer counts the steps of a `fit`."""
        return self._batches.accumulates(model)

    def refuse_accumulation(self, model: Any) -> None:
        """What `train_on_batch` gets can't be put together, nor cut in slices whose logs mean something."""
        if self._spec.accumulate > 1 or self._batches.steps(model) > 1:
            raise ValueError(
                "tfdist verify compares gradient accumulation in fit. Received: train_on_batch, with "
                "gradient_accumulation_steps above 1. Call fit, or compare without accumulation."
            )

    def prepare(self, model: Any) -> bool:
        """Before the train function is made: note the rows of every step; returns whether that is new."""
        if id(model) in self._prepared:
            return False
        self._prepared[id(model)] = model
        model.run_eagerly = bool(model.run_eagerly or self._spec.probe)
        model.train_step = self._noted(model, model.train_step)
        return True

    def begin(self, model: Any) -> None:
        """A `fit` begins. On one device Keras builds some models in their first step; those begin there."""
        self._ahead[id(model)] = model
        if model.built:
            self._begin_now(model)

    def _begin_now(self, model: Any) -> None:
        if self._ahead.pop(id(model), None) is not None:
            inert = make_inert(model)
            self._recorder.begin(_values(model.weights), {**facts_of(model), "inert": inert})

    def step(self, model: Any, steps: int, logs: Any) -> None:
        """Steps are done."""
        self._recorder.complete([describe(variable) for variable in model.weights])
        optimizer = model.optimizer
        slots = _values(optimizer.variables) if optimizer else []
        rate = {LEARNING_RATE: keras.ops.convert_to_numpy(optimizer.learning_rate)} if optimizer else {}
        self._recorder.step(steps, {**logs, **rate}, _values(model.weights), slots)

    def epoch(self, logs: Any) -> None:
        """An epoch is done."""
        self._recorder.epoch(logs)

    @property
    def most_steps(self) -> int:
        """Steps that are compared, of training and of each validation."""
        return self._spec.steps

    @property
    def is_done(self) -> bool:
        """Whether all steps that were asked for are recorded."""
        return self._recorder.steps >= self._spec.steps

    def _noted(self, model: Any, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        # As tfdist traces a step that the user has decorated with tf.function: replicas exchange nothing inside one.
        function = python_function(step)
        if self._spec.probe:
            function = Probe(self._recorder, model, function, self._spec).step

        @functools.wraps(function)
        def noted(data: Any) -> Any:
            if id(model) in self._ahead:
                with tf.init_scope():
                    build(model, data)
                    self._begin_now(model)
            self._note(data)
            logs = function(data)
            self._note_raw(logs)
            call_sites.step_ends()
            return logs

        return noted

    def _note(self, data: Any) -> None:
        call_sites.step_begins()
        current = hooks.current_step()
        has_rows = tf.constant(True) if current is None else current.has_rows()
        note_rows(data, has_rows, self._recorder.take_rows)

    def _note_raw(self, logs: Any) -> None:
        """Numbers that are no results of metrics: of a step with several micro-batches they show the last."""
        current = hooks.current_step()
        if current is None or not isinstance(logs, dict):
            return
        results = {id(value) for _, result in current.results for value in tf.nest.flatten(result)}
        raw = [name for name, value in logs.items() if id(value) not in results]
        self._recorder.facts["raw_logs"] = sorted({*self._recorder.facts.get("raw_logs", ()), *raw})


class RecordSteps(keras.callbacks.Callback):
    """Records the steps of one `fit`.

    Args:
        fits: what records them.
        model: the model that is fitted.
        accumulates: whether a step takes several batches; then the optimizer counts the steps.
    """

    def __init__(self, fits: Fits, model: Any, *, accumulates: bool) -> None:
        super().__init__()
        self._fits, self._model_fitted, self._accumulates = fits, model, accumulates
        self._last_batch, self._batches, self._recorded = -1, 0, 0
        self._last_logs: dict[str, Any] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Weights before the first step."""
        self._fits.begin(self._model_fitted)
        self._recorded = self._steps()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Batches count from 0 in each epoch."""
        self._last_batch = -1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A batch, or those of one execution."""
        self._batches += batch - self._last_batch
        self._last_batch, self._last_logs = batch, dict(logs or {})
        self._record_steps()

    def on_test_begin(self, logs: Any = None) -> None:
        """Leftover micro-batches have become a step before validation, or before the epoch's end."""
        self._record_steps()

    def _record_steps(self) -> None:
        done = self._steps()
        if done > self._recorded:
            self._fits.step(self._model_fitted, done - self._recorded, self._last_logs)
            self._recorded = done
        if self._fits.is_done:
            self._model_fitted.stop_training = True

    def _steps(self) -> int:
        return int(self._model_fitted.optimizer.iterations.numpy()) if self._accumulates else self._batches

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """The epoch's logs, with those of validation."""
        self._record_steps()
        self._fits.epoch({name: value for name, value in (logs or {}).items() if np.ndim(value) == 0})

    def on_train_end(self, logs: Any = None) -> None:
        """What comes behind the last step is not run."""
        if self._fits.is_done:
            raise Done


def _shorten_validation(arguments: dict[str, Any], batches: int) -> None:
    """A validation set may take longer than all steps that are compared."""
    dataset = arguments.get("validation_data")
    if isinstance(dataset, tf.data.Dataset) and arguments.get("validation_steps") is None:
        arguments["validation_data"] = dataset.take(batches)


def build(model: Any, data: Any) -> None:
    """Make a model's variables before its first step does, from the shapes of a batch."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    specs = tf.nest.map_structure(lambda leaf: keras.KerasTensor(tuple(leaf.shape), leaf.dtype.name), x)
    # What can't be called like this is built by the step itself.
    with contextlib.suppress(Exception):
        model(specs)


def _inherited(model: Any, name: str) -> Any:
    """The method that keras.Model inherits, whoever has replaced it there."""
    return getattr(super(keras.Model, model), name)


def _logs(result: Any) -> dict[str, Any]:
    """What train_on_batch returned, by name: a dictionary, or the loss and what follows it."""
    if isinstance(result, dict):
        return result
    values = result if isinstance(result, (list, tuple)) else [result]
    return {"loss" if place == 0 else f"metric {place}": value for place, value in enumerate(values)}


def _values(variables: Any) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def _with(callbacks: Any, recorder: keras.callbacks.Callback, model: Any) -> Any:
    """The callbacks of a `fit`, the recorder behind them, without those that write files."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(recorder)
        recorder.set_model(model)
        return callbacks
    given = callbacks if isinstance(callbacks, (list, tuple)) else [] if callbacks is None else [callbacks]
    return [*(one for one in given if not isinstance(one, LEFT_OUT)), recorder]
