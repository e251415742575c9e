"""What happens to a gradient between the backward pass and the update: exact weighting and the reduce."""

from __future__ import annotations

from tfdist.gradients.reduction import all_reduce_gradients, average_over_replicas, sum_over_replicas
from tfdist.gradients.step import ReplicaStep, count_rows

__all__ = ["ReplicaStep", "all_reduce_gradients", "average_over_replicas", "count_rows", "sum_over_replicas"]
