"""The first training step on a whole batch, beside the same step on its slices, eagerly and on one device.

A strategy gives each replica a slice, and puts together what the replicas found: outputs row by row, gradients as the
mean weighted by rows. Where the script's own step keeps to that, N slices do what the whole batch does. Where it does
not, the probe says at which of four places it goes wrong first:

    layers      the first layer whose output for a row depends on the other rows
    loss        whether the loss is the mean of the slices' losses
    gradients   whether the gradients that the tape gave are the mean of the slices' gradients
    applied     whether those that the optimizer got are; if only these are not, something between is no linear
                function of the gradients, such as clipping

Nothing is applied: the optimizer's `apply` is taken out, and variables are put back between the views.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdist._compat.keras_trainer import flatten_layers
from tfdist.data.rows import slice_rows
from tfdist.gradients import count_rows
from tfdist.verify.child.random_layers import calm_down
from tfdist.verify.child.recorder import Recorder
from tfdist.verify.child.sketch import keep
from tfdist.verify.spec import SEED, ChildSpec

#: Numbers kept of each row of a layer's output.
_ROW_NUMBERS = 64
#: Relative differences above are no rounding in float32.
_ROUNDING = 1e-3


@dataclass
class View:
    """What one call of the step did.

    Attributes:
        rows: of the batch that it was given.
        outputs: of each call of a layer, by its path and how often it was called before.
        losses: what was differentiated.
        gradients: what the tapes gave.
        applied: what the optimizers were given.
    """

    rows: int
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    gradients: list[np.ndarray] = field(default_factory=list)
    applied: list[np.ndarray] = field(default_factory=list)


class Probe:
    """Stands in place of a model's train step, once.

    Args:
        recorder: takes what is found, among the facts.
        model: the model.
        step: its train step.
        spec: the run; says into how many slices the batch is cut.
    """

    def __init__(self, recorder: Recorder, model: Any, step: Callable[[Any], Any], spec: ChildSpec) -> None:
        self._recorder, self._model, self._step, self._spec = recorder, model, step, spec

    def step(self, data: Any) -> Any:
        """Look, write what was found, and end the script."""
        try:
            self._recorder.facts["probe"] = self._look(data)
        except Exception:  # the step may refuse a slice: then there is nothing to be seen
            self._recorder.facts["probe"] = {"error": traceback.format_exc(limit=-3)}
        raise SystemExit(0)

    def _look(self, data: Any) -> dict[str, Any]:
        # Slices on one device don't know each other, as micro-batches don't; replicas do, in layers that synchronize.
        asked = self._recorder.facts.get("accumulate", 1)
        for layer in flatten_layers(self._model) if asked * self._spec.accumulate == 1 else ():
            if isinstance(layer, keras.layers.BatchNormalization) and layer.synchronized:
                calm_down(layer)
        slices = self._spec.probe * asked
        variables = self._variables()
        before = [tf.identity(variable.value) for variable in variables]
        views = []
        for part in [data, *(slice_rows(data, index, slices) for index in range(slices))]:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
            views.append(self._view(part))
        return findings(*views)

    def _variables(self) -> list[Any]:
        optimizer = self._model.optimizer
        found = [*self._model.variables, *self._model.metrics_variables, *(optimizer.variables if optimizer else [])]
        return list({id(variable): variable for variable in found}.values())

    def _view(self, data: Any) -> View:
        rows = count_rows(data)
        view = View(0 if rows is None else int(rows))
        tf.random.set_seed(SEED)
        with looking(view):
            self._step(data)
        return view


@contextlib.contextmanager
def looking(view: View) -> Iterator[None]:
    """While entered, what layers, tapes and optimizers do is noted in `view`."""
    call, gradient = keras.layers.Layer.__call__, tf.GradientTape.gradient

    def noted_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = call(self, *args, **kwargs)
        _note_outputs(view, self, outputs)
        return outputs

    def noted_gradient(self: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        found = gradient(self, target, *args, **kwargs)
        view.losses += [float(loss) for loss in tf.nest.flatten(target) if loss.shape.rank == 0]
        view.gradients += _arrays(found)
        return found

    def noted_apply(self: Any, grads: Any, trainable_variables: Any = None) -> None:
        view.applied += _arrays(list(grads))

    with contextlib.ExitStack() as stack:
        for owner, name, method in (
            (keras.layers.Layer, "__call__", noted_call),
            (tf.GradientTape, "gradient", noted_gradient),
            (keras.optimizers.Optimizer, "apply", noted_apply),
        ):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, method)
        yield


def _note_outputs(view: View, layer: Any, outputs: Any) -> None:
    for place, output in enumerate(tf.nest.flatten(outputs)):
        if not hasattr(output, "numpy") or isinstance(output, tf.RaggedTensor) or not output.shape.rank:
            continue
        if output.dtype.is_floating and output.shape[0] == view.rows:
            calls = sum(name.startswith(f"{layer.path}|{type(layer).__name__}|{place}|") for name in view.outputs)
            view.outputs[f"{layer.path}|{type(layer).__name__}|{place}|{calls}"] = row_sketch(output.numpy())


def row_sketch(output: np.ndarray) -> np.ndarray:
    """At most _ROW_NUMBERS numbers of each row, shape [rows, numbers], in which every element has a part."""
    flat = output.reshape(len(output), -1).astype(np.float64)
    width = -(-flat.shape[1] // _ROW_NUMBERS) * _ROW_NUMBERS
    if flat.shape[1] <= _ROW_NUMBERS:
        return flat
    signs = np.random.RandomState(0).choice([-1.0, 1.0], flat.shape[1])
    padded = np.pad(flat * signs, [(0, 0), (0, width - flat.shape[1])])
    return padded.reshape(len(flat), -1, _ROW_NUMBERS).sum(1)


def _arrays(gradients: Any) -> list[np.ndarray]:
    dense = [tf.convert_to_tensor(one) for one in tf.nest.flatten(gradients) if one is not None]
    return [keep(one.numpy()).astype(np.float64) for one in dense]


def findings(whole: View, *slices: View) -> dict[str, Any]:
    """Where the slices, put together, differ from the whole; as JSON."""
    shares = [view.rows / max(whole.rows, 1) for view in slices]
    return {
        "layers": mixing_layers(whole, slices),
        "losses": _compared([[np.array([loss]) for loss in view.losses] for view in (whole, *slices)], shares),
        "gradients": _compared([view.gradients for view in (whole, *slices)], shares),
        "applied": _compared([view.applied for view in (whole, *slices)], shares),
    }


def mixing_layers(whole: View, slices: Sequence[View]) -> list[dict[str, Any]]:
    """Layers, in the order of calls, whose output for a row depends on other rows, and those behind them."""
    found = []
    for name, output in whole.outputs.items():
        parts = [view.outputs[name] for view in slices if name in view.outputs]
        if sum(map(len, parts)) != len(output):
            continue
        difference = relative(np.concatenate(parts), output)
        if difference > _ROUNDING:
            path, class_, *_ = name.split("|")
            found.append({"path": path, "class": class_, "difference": difference})
    return found


def _compared(values: Sequence[Sequence[np.ndarray]], shares: Sequence[float]) -> dict[str, Any] | None:
    """Difference of the weighted mean from the whole, and the factor between them if it is one number."""
    whole, *slices = values
    if not whole or any(len(part) != len(whole) for part in slices):
        return None
    same = [i for i, one in enumerate(whole) if all(part[i].shape == one.shape for part in slices)]
    if not same:
        return None
    expected = np.concatenate([whole[i] for i in same])
    means = [sum(share * part[i] for share, part in zip(shares, slices, strict=True)) for i in same]
    received = np.concatenate(means)
    square = float(expected @ expected)
    factor = float(received @ expected) / square if square else 1.0
    return {
        "difference": relative(received, expected),
        "factor": factor if relative(received, factor * expected) < _ROUNDING else None,
    }


def relative(received: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest expected value."""
    scale = max(float(np.max(np.abs(expected), initial=0.0)), 1e-30)
    return float(np.max(np.abs(received - expected), initial=0.0)) / scale
