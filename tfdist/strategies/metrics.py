"""Metric results of the global data, from the replicas' own metric variables."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdist.gradients import sum_over_replicas


def metric_results(model: Any) -> dict[str, Any]:
    """Results under every name that a train_step may return them under.

    Keras' own steps return the compiled metrics one by one; `{m.name: m.result() for m in self.metrics}`, as Keras'
    guides have it, returns them as one dictionary.
    """
    return {**{m.name: m.result() for m in model.metrics}, **model.get_metrics_result()}


def global_metric_results(strategy: tf.distribute.Strategy, model: Any, names: set[str]) -> dict[str, Any]:
    """Results of the named metrics over all replicas' data; call it in cross-replica context.

    Metric variables are sums over examples (Keras makes them with aggregation "sum"), so the replicas' values are
    added, all of a dtype in one all-reduce, and each `metric.result()` is computed from the totals.
    """

    def named_results() -> dict[str, Any]:
        return {name: result for name, result in metric_results(model).items() if name in names}

    def in_replica() -> dict[str, Any]:
        variables = model.metrics_variables
        if strategy.num_replicas_in_sync == 1 or not variables:
            return named_results()
        values = [tf.identity(v.value) for v in variables]
        totals = zip(variables, sum_over_replicas(values), strict=True)
        with keras.StatelessScope(state_mapping=list(totals)):
            return named_results()

    if not names:
        return {}
    results = strategy.extended.call_for_each_replica(in_replica)
    return {name: strategy.experimental_local_results(value)[0] for name, value in results.items()}
