"""Weights are equal, and what is reported is not."""

from __future__ import annotations

from tfdist.verify.diagnosis.finding import Evidence, Finding


def metric_is_no_sum(evidence: Evidence) -> Finding | None:
    """Only logs differ: a metric whose variables can't be added up over replicas, or a number that is no mean."""
    worst = evidence.comparison.worst_variable
    logs = tuple(one.name for one in evidence.comparison.first if one.kind == "log")
    if not logs or (worst is not None and worst.excess > 1):
        return None
    return Finding(
        "metric_is_no_sum",
        f"only what is reported differs: {', '.join(logs)}",
        "The weights are those of one device. tfdist adds a metric's variables up over the replicas, and averages "
        "other numbers that a step returns by rows: a maximum, a median or a state that is no sum comes out wrong.",
        "Keep sums and counts in the metric's variables and compute the result from them in result(), as "
        "keras.metrics.Mean does.",
        (*logs, *(f"{name} at {where}" for name, where in evidence.fit["own"].items())),
        "likely",
    )
