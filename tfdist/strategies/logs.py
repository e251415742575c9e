"""What a train or test step returns: results of metrics, of the global data, and other numbers, averaged."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfdist._compat import hooks
from tfdist.gradients import average_over_replicas, sum_over_replicas

Logs = dict[str, Any]
Values = list[tf.Tensor]


class MetricResult(NamedTuple):
    """A place in the logs that holds a metric's result, or the named entry of one."""

    metric: Any
    key: str | None


class LogSources:
    """Where each number in a step's logs comes from; learnt when the step is traced.

    A number is a metric's result if it is the very tensor that the metric's `result()` returned, under whatever name:
    a raw loss that is called "loss" as well is another tensor than the loss tracker's result.
    """

    def __init__(self) -> None:
        self._template: Any = {}
        self._sources: list[MetricResult | None] = []

    @property
    def metrics(self) -> list[MetricResult]:
        """The results among the logs, in their order."""
        return [source for source in self._sources if source is not None]

    @property
    def are_results(self) -> bool:
        """Whether they are results of metrics, all of them."""
        return None not in self._sources

    def split(self, logs: Any, results: list[tuple[Any, Any]]) -> Values:
        """The numbers that are no metric's results; the rest is remembered by its source.

        Args:
            logs: what the step returned, any nesting.
            results: metrics, and what their `result()` returned in this step.
        """
        known = {}
        for metric, value in results:
            for key, part in value.items() if isinstance(value, dict) else [(None, value)]:
                known[id(part)] = MetricResult(metric, key)
        leaves = tf.nest.flatten(logs)
        self._template = tf.nest.map_structure(lambda _: 0, logs)
        self._sources = [known.get(id(leaf)) for leaf in leaves]
        return [leaf for leaf, source in zip(leaves, self._sources, strict=True) if source is None]

    def merge(self, others: Values, results: Values) -> Logs:
        """The logs as the step returned them, with global values."""
        rest, found = iter(others), iter(results)
        leaves = [next(rest) if source is None else next(found) for source in self._sources]
        return tf.nest.pack_sequence_as(self._template, leaves)


def averaged(values: Values, step: hooks.Step) -> Values:
    """Numbers averaged over the replicas, weighted by rows, in replica context.

    Raises:
        ValueError: a value has a dimension that depends on the replica's rows.
    """
    if not values:
        return values
    tensors = [tf.convert_to_tensor(value) for value in values]
    for tensor in tensors:
        if not tensor.shape.is_fully_defined():
            raise ValueError(
                "Logs are numbers that replicas can average. Expected: scalars or fixed shapes in what train_step or "
                f"test_step returns. Received: shape={tensor.shape}. Return a mean, or the result of a metric."
            )
    tensors = [tensor if tensor.dtype.is_floating else tf.cast(tensor, tf.float32) for tensor in tensors]
    return average_over_replicas(tensors, share=step.row_share())


def global_metric_results(strategy: tf.distribute.Strategy, model: Any, wanted: list[MetricResult]) -> Values:
    """Results over all replicas' data; call it in cross-replica context.

    Metric variables are sums over examples (Keras makes them with aggregation "sum"), so the replicas' values are
    added, all of a dtype in one all-reduce, and each `metric.result()` is computed from the totals.
    """

    def in_replica() -> Values:
        variables = model.metrics_variables
        totals = sum_over_replicas([tf.identity(variable.value) for variable in variables])
        with keras.StatelessScope(state_mapping=list(zip(variables, totals, strict=True))):
            # Converted in the scope: a result may be the metric's variable itself.
            return metric_results(wanted)

    if not wanted:
        return []
    results = strategy.extended.call_for_each_replica(in_replica)
    return [strategy.experimental_local_results(value)[0] for value in results]


def metric_results(wanted: list[MetricResult]) -> Values:
    """Results of metrics as their variables stand."""
    return [_part(metric.result(), key) for metric, key in wanted]


def _part(result: Any, key: str | None) -> tf.Tensor:
    return tf.convert_to_tensor(result if key is None else result[key])
