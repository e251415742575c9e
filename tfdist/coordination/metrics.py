"""Metrics of data that several workers see: added up by the chief, or updated there.

Keras' own metrics are sums over examples, so a worker reports what its data adds to them. Any other metric may do what
it likes with its state: a worker sends the arguments of `update_state`, and the chief updates it with them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.keras_metrics import inner_metrics

_SUMS = ("keras", "tfdist")


class Metrics(NamedTuple):
    """A model's metrics that have variables of their own, by how the chief learns of them."""

    summed: list[Any]
    updated: list[Any]

    @property
    def summed_variables(self) -> list[Any]:
        """All variables of those that are summed."""
        return [variable for metric in self.summed for variable in metric.variables]


def metrics_of(model: Any) -> Metrics:
    """Metrics of a compiled model, also those inside others."""
    leaves = {id(leaf): leaf for metric in model.metrics for leaf in _leaves(metric)}.values()
    return Metrics([one for one in leaves if is_sum(one)], [one for one in leaves if not is_sum(one)])


def _leaves(metric: Any) -> Iterator[Any]:
    if not is_sum(metric):
        yield metric  # it updates those inside it
        return
    inner = inner_metrics(metric)
    for one in inner:
        yield from _leaves(one)
    if not inner:
        yield metric


def is_sum(metric: keras.metrics.Metric) -> bool:
    """Whether what a batch adds to a metric's variables doesn't depend on their values."""
    return type(metric).update_state.__module__.partition(".")[0] in _SUMS


class Update(NamedTuple):
    """A call of `update_state`: the metric, and its arguments with tensors' places marked."""

    metric: Any
    arguments: Any
    is_tensor: list[bool]


class Updates:
    """Calls of `update_state` while a worker's step is traced."""

    def __init__(self) -> None:
        self._calls: list[Update] = []
        self.tensors: list[tf.Tensor] = []

    @contextlib.contextmanager
    def recording(self, metrics: list[Any]) -> Iterator[None]:
        """In place of updating these metrics, keep what they are called with."""
        try:
            for metric in metrics:
                object.__setattr__(metric, "update_state", self._recorder(metric))
            yield
        finally:
            for metric in metrics:
                vars(metric).pop("update_state", None)

    def _recorder(self, metric: Any) -> Any:
        def update_state(*args: Any, **kwargs: Any) -> None:
            flat = tf.nest.flatten((args, kwargs), expand_composites=True)
            is_tensor = [tf.is_tensor(leaf) for leaf in flat]
            step = hooks.current_step()
            self.tensors.append(tf.constant(True) if step is None else step.has_rows())
            self.tensors += [tf.convert_to_tensor(leaf) for leaf in flat if tf.is_tensor(leaf)]
            self._calls.append(Update(metric, (args, kwargs), is_tensor))

        return update_state

    def replay(self, tensors: list[Any]) -> None:
        """Make the calls, with values in place of the tensors that were kept, but those of replicas without rows."""
        values = iter(tensors)
        for metric, arguments, is_tensor in self._calls:
            has_rows = bool(next(values))
            flat = tf.nest.flatten(arguments, expand_composites=True)
            flat = [next(values) if one else leaf for leaf, one in zip(flat, is_tensor, strict=True)]
            args, kwargs = tf.nest.pack_sequence_as(arguments, flat, expand_composites=True)
            if has_rows:
                metric.update_state(*args, **kwargs)
