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
from tfdist.verify.child import call_sites
from tfdist.verify.child.facts import describe, facts_of
from tfdist.verify.child.probe import Probe
from tfdist.verify.child.random_layers import make_inert
from tfdist.verify.child.recorder import Recorder
from tfdist.verify.child.rows import note_rows
from tfdist.verify.spec import ChildSpec

#: Callbacks that write files which the user's own training needs, or go on from them.
LEFT_OUT = (
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.BackupAndRestore,
    keras.callbacks.TensorBoard,
    keras.callbacks.CSVLogger,
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
    """

    def __init__(self, spec: ChildSpec, recorder: Recorder) -> None:
        self._spec, self._recorder = spec, recorder
        self._prepared: dict[int, Any] = {}
        self._ahead: dict[int, Any] = {}

    def watch(self) -> None:
        """Replace the methods of `keras.Model`."""
        keras.Model.fit = self._fit()
        keras.Model.train_on_batch = self._train_on_batch()

    def _fit(self) -> Callable[..., Any]:
        fits = self

        @functools.wraps(keras.Model.fit)
        def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
            inherited = _inherited(self, "fit")
            call = inspect.signature(inherited).bind(*args, **kwargs)
            fits.prepare(self)
            callbacks = call.arguments.get("callbacks")
            call.arguments["callbacks"] = _with(callbacks, RecordSteps(fits, self), self)
            return inherited(*call.args, **call.kwargs)

        return fit

    def _train_on_batch(self) -> Callable[..., Any]:
        fits = self

        @functools.wraps(keras.Model.train_on_batch)
        def train_on_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
            if fits.prepare(self):
                fits.begin(self)
            result = _inherited(self, "train_on_batch")(*args, **kwargs)
            fits.step(self, 1, _logs(result))
            if fits.is_done:
                raise Done
            return result

        return train_on_batch

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
        slots = _values(model.optimizer.variables) if model.optimizer else []
        self._recorder.step(steps, logs, _values(model.weights), slots)

    def epoch(self, logs: Any) -> None:
        """An epoch is done."""
        self._recorder.epoch(logs)

    @property
    def is_done(self) -> bool:
        """Whether all steps that were asked for are recorded."""
        return self._recorder.steps >= self._spec.steps

    def _noted(self, model: Any, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        # As tfdist traces a step that the user has decorated with tf.function: replicas exchange nothing inside one.
        function = python_function(step)
        if self._spec.probe:
            function = Probe(self._recorder, model, function, self._spec.probe).step

        @functools.wraps(function)
        def noted(data: Any) -> Any:
            if id(model) in self._ahead:
                with tf.init_scope():
                    build(model, data)
                    self._begin_now(model)
            self._note(data)
            logs = function(data)
            call_sites.step_ends()
            return logs

        return noted

    def _note(self, data: Any) -> None:
        call_sites.step_begins()
        current = hooks.current_step()
        has_rows = tf.constant(True) if current is None else current.has_rows()
        note_rows(data, has_rows, self._recorder.take_rows)


class RecordSteps(keras.callbacks.Callback):
    """Records the steps of one `fit`.

    Args:
        fits: what records them.
        model: the model that is fitted.
    """

    def __init__(self, fits: Fits, model: Any) -> None:
        super().__init__()
        self._fits, self._model_fitted = fits, model
        self._last_batch = -1

    def on_train_begin(self, logs: Any = None) -> None:
        """Weights before the first step."""
        self._fits.begin(self._model_fitted)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Batches count from 0 in each epoch."""
        self._last_batch = -1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """One step, or the steps of one execution."""
        steps, self._last_batch = batch - self._last_batch, batch
        self._fits.step(self._model_fitted, steps, logs or {})
        if self._fits.is_done:
            self._model_fitted.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """The epoch's logs, with those of validation."""
        self._fits.epoch({name: value for name, value in (logs or {}).items() if np.ndim(value) == 0})

    def on_train_end(self, logs: Any = None) -> None:
        """What comes behind the last step is not run."""
        if self._fits.is_done:
            raise Done


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
